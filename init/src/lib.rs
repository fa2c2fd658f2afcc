//! PID 1: the boot, the supervisor of every container, and the way down.
//!
//! One thread, one epoll loop. It never panics and never blocks: whatever may hang or be slow (a mount, a file system
//! check, reading a configuration that somebody else wrote) happens in a forked child, see [`task`].
//!
//! Where to start reading: [`boot`] is the plan as a table, [`machine`] the loop, [`supervisor`] the containers.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod boot;
pub mod clock;
pub mod command_line;
pub mod configuration;
pub mod journal;
pub mod machine;
pub mod mounts;
pub mod power_button;
pub mod reactor;
pub mod shutdown;
pub mod status;
mod stopped;
pub mod storage;
pub mod supervisor;
pub mod sys;
pub mod task;
pub mod timeline;
pub mod uevent;

use std::time::Duration;

use berth_control::message::PowerAction;

/// PID 1. Does not return, because the kernel panics when PID 1 ends.
pub fn main() -> ! {
    std::panic::set_hook(Box::new(|information| {
        // Not a kernel panic: the disks get a moment, and the machine comes up again by itself.
        log::error!("PID 1 has a defect and starts the machine again: {information}");
        nix::unistd::sync();
        std::thread::sleep(Duration::from_secs(5));
        shutdown::end(PowerAction::Reboot);
    }));
    match machine::Machine::new() {
        Ok(mut machine) => {
            boot::run(&mut machine);
            let action = machine.run();
            shutdown::end(action);
        }
        Err(error) => {
            // Without epoll and signalfd there is nothing to run on; the kernel has both since 2.6.27.
            journal::start();
            log::error!("this kernel does not offer what PID 1 needs: {error}");
        }
    }
    // The kernel has refused to go down, or is too old to run Berth: stay, so that the console can be read.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
