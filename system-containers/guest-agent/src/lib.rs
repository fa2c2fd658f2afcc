//! The QEMU guest agent: what the hypervisor's tools (libvirt, Proxmox, cloud panels) ask the inside of a machine.
//!
//! One thread, no asynchronous runtime: the port, the children of `guest-exec` and their pipes are waited for in one
//! place, [`agent`]. The protocol is that of QEMU's own agent (docs/interop/qemu-ga-ref); what is served is the
//! table in [`commands`]. Whoever is at the other end of the port already owns the machine, so nothing here guards
//! the machine from its requests; it is guarded from malformed and endless ones.

use std::path::Path;
use std::process::ExitCode;

pub mod agent;
pub mod commands;
pub mod files;
pub mod frames;
pub mod port;
pub mod processes;
pub mod protocol;

/// The program `berth-guest-agent`: serves the port until it goes away.
#[must_use]
pub fn main() -> ExitCode {
    let opened = port::find(Path::new("/sys/class/virtio-ports"), Path::new("/dev"), port::NAME)
        .and_then(|path| port::open(&path));
    let port = match opened {
        Ok(port) => port,
        Err(error) => return fail(&error),
    };
    match agent::Agent::new(port, commands::Host::of_this_machine()).and_then(agent::Agent::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says on standard error, which is the container's log, why the program ends.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("guest-agent: {}", protocol::chain(error));
    ExitCode::FAILURE
}
