//! PID 1: the boot, the supervisor of every container, and the way down.
//!
//! One thread, one epoll loop. It never panics and never blocks: whatever may hang or be slow (a mount, a file system
//! check, reading a configuration that somebody else wrote) happens in a forked child, see [`task`].
//!
//! Where to start reading: [`boot`] is the plan as a table, [`machine`] the loop, [`supervisor`] the containers.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod boot;
pub mod boots;
pub mod clock;
pub mod command_line;
pub mod configuration;
mod files;
pub mod handover;
pub mod journal;
pub mod machine;
mod made;
pub mod mounts;
pub mod power_button;
pub mod pressure;
mod printable;
pub mod reactor;
mod registry;
pub mod shutdown;
pub mod status;
mod stopped;
pub mod storage;
pub mod supervisor;
pub mod sys;
pub mod task;
pub mod timeline;
pub mod uevent;
pub mod watchdog;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_control::message::PowerAction;

/// PID 1. Does not return, because the kernel panics when PID 1 ends.
pub fn main() -> ! {
    std::panic::set_hook(Box::new(|information| die_of(&information.to_string().replace('\n', " "))));
    let inheritance = handover::resume::record_number().map(handover::resume::inherit).transpose();
    let inheritance = inheritance.unwrap_or_else(|hopeless| handover::minimal::run(&hopeless));
    match machine::Machine::new() {
        Ok(mut machine) => {
            match inheritance {
                None => {
                    boot::run(&mut machine);
                    machine.begin_handover(Vec::new(), &BTreeMap::new());
                }
                Some(inheritance) => {
                    journal::start();
                    let resumed = handover::resume::resume(&mut machine, inheritance);
                    resumed.unwrap_or_else(|hopeless| handover::minimal::run(&hopeless));
                }
            }
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

/// What a panic comes to: the next program, or the next boot if there is no way to the next program. In a child that PID 1
/// has forked only the child ends.
fn die_of(information: &str) {
    log::error!("a defect: {information}");
    if sys::crash::is_child() || std::process::id() != 1 {
        return;
    }
    handover::leave_after_defect(information);
    // Not a kernel panic: the disks get a moment, and the machine comes up again by itself.
    nix::unistd::sync();
    std::thread::sleep(Duration::from_secs(5));
    shutdown::end(PowerAction::Reboot);
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
