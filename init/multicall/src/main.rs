//! The one binary of the image: PID 1, every system container's program and the command line, chosen by name.
//!
//! PID 1 is told apart before anything else runs: nothing here or before it may touch clap, tokio or zbus on that path.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

type Program = fn() -> ExitCode;

/// The programs of the system containers by the last component of the name they are called by.
const PROGRAMS: &[(&str, Program)] = &[
    ("berth-console", berth_console::main),
    ("berth-control", berth_control_server::main),
    ("berth-engine", berth_engine::main),
    ("berth-guest-agent", berth_guest_agent::main),
    ("berth-logs", berth_logs::main),
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
    if name == b"init" && std::env::args_os().nth(1).is_some_and(|word| word == berth_init::handover::ASK) {
        println!("{} {}", berth_init::handover::ANSWER, berth_init::handover::FORMAT);
        return ExitCode::SUCCESS;
    }
    if name == b"init" {
        eprintln!("init: this is process 1's program and it runs already; `berth reboot` starts the machine again");
        return ExitCode::FAILURE;
    }
    berth_console::cli::main()
}

fn program(name: &[u8]) -> Option<Program> {
    PROGRAMS.iter().find(|(own, _)| own.as_bytes() == name).map(|(_, main)| *main)
}

fn last_component(path: &OsString) -> &[u8] {
    path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_container_has_its_program_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../system-containers");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path().join("container.toml");
            let Ok(text) = std::fs::read(&path) else { continue };
            let source = berth_config::Source::new(path.display().to_string(), text);
            let definition = berth_config::load_system_container(&source)
                .map_err(|mistakes| mistakes.iter().map(|mistake| mistake.summary()).collect::<String>())
                .unwrap();
            let command = OsString::from(&definition.command[0]);
            assert!(program(last_component(&command)).is_some(), "{command:?}");
            count += 1;
        }
        assert_eq!(count, PROGRAMS.len());
    }

    #[test]
    fn a_name_is_the_last_component() {
        assert_eq!(last_component(&"/usr/bin/berth-logs".into()), b"berth-logs");
        assert_eq!(last_component(&"init".into()), b"init");
    }
}
