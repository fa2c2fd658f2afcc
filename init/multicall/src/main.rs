//! The one binary of the image: PID 1, every system container's program and the command line, chosen by name.
//!
//! PID 1 is told apart before anything else runs: nothing here or before it may touch clap, tokio or zbus on that path.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// The programs of the system containers by the last component of the name they are called by.
const PROGRAMS: &[(&str, fn() -> ExitCode)] = &[
    ("berth-console", berth_console::main),
    ("berth-control", berth_control_server::main),
    ("berth-guest-agent", berth_guest_agent::main),
    ("berth-network", berth_network::main),
];

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = last_component(&called);
    // A system container's program is process 1 of its own PID namespace, so its name is asked first.
    if let Some(program) = program(name) {
        return program();
    }
    if std::process::id() == 1 {
        berth_init::main();
    }
    if name == b"init" {
        eprintln!("init: this is process 1's program and it runs already; `berth reboot` starts the machine again");
        return ExitCode::FAILURE;
    }
    berth_console::cli::main()
}

fn program(name: &[u8]) -> Option<fn() -> ExitCode> {
    PROGRAMS.iter().find(|(own, _)| own.as_bytes() == name).map(|(_, main)| *main)
}

fn last_component(path: &OsString) -> &[u8] {
    path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}
