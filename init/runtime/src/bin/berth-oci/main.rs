//! `berth-oci`: the runtime as a command line that takes what runc's takes.
//!
//! Every command is one function of one module; this file chooses it and reports its error. Scripts written for runc
//! rely on names, exit codes and outputs: where they differ from runc's it is a defect.

mod activation;
mod arguments;
mod cgroups;
mod commands;
mod container;
mod events;
mod execute;
mod features;
mod lifecycle;
mod log;
mod processes;
mod show;
mod signals;
mod specimen;
mod store;
mod sys;
mod terminal;
mod update;
mod usage;

use std::process::ExitCode;

use arguments::Arguments;
use commands::Command;

#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new();

fn main() -> ExitCode {
    let protected = protect();
    let arguments = match usage::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let log = match log::Log::new(arguments.log.as_deref(), arguments.log_format) {
        Ok(log) => log,
        Err(error) => {
            log::Log::without_file().error(&error.chain());
            return ExitCode::FAILURE;
        }
    };
    match protected.and_then(|()| run(&arguments, &log)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.chain());
            // As runc has it: 255 where the container's own exit code would be, 1 elsewhere.
            let code = if matches!(arguments.command, Command::Exec(_)) { 255 } else { 1 };
            ExitCode::from(code)
        }
    }
}

/// Before anything else, because it begins the program anew; only what makes processes in containers has to. A
/// container called `run` costs one more beginning.
fn protect() -> Result<(), container::Failure> {
    let makes_processes = |argument: std::ffi::OsString| ["create", "run", "exec"].iter().any(|name| argument == *name);
    if std::env::args_os().skip(1).any(makes_processes) {
        berth_runtime::binary::protect()?;
    }
    Ok(())
}

fn run(arguments: &Arguments, log: &log::Log) -> Result<u8, container::Failure> {
    sys::close_others_on_exec();
    if arguments.systemd_cgroup {
        return Err(container::Failure::SystemdCgroup);
    }
    let store = store::Store::new(arguments.root.clone().unwrap_or_else(store::default_root));
    match &arguments.command {
        Command::Create(options) => lifecycle::create(&store, log, options),
        Command::Start(options) => lifecycle::start(&store, &options.id),
        Command::Run(options) => lifecycle::run(&store, log, options),
        Command::Kill(options) => lifecycle::kill(&store, options),
        Command::Delete(options) => lifecycle::delete(&store, log, options),
        Command::Exec(options) => execute::exec(&store, log, options),
        Command::State(options) => show::state(&store, &options.id),
        Command::List(options) => show::list(&store, options),
        Command::Ps(options) => processes::ps(&store, options),
        Command::Pause(options) => cgroups::pause(&store, &options.id),
        Command::Resume(options) => cgroups::resume(&store, &options.id),
        Command::Update(options) => update::update(&store, options),
        Command::Events(options) => events::events(&store, options),
        Command::Spec(options) => specimen::write(options),
        Command::Features(_) => features::print(),
        Command::Checkpoint(options) => Err(container::Failure::no_checkpoint("checkpoint", &options.words)),
        Command::Restore(options) => Err(container::Failure::no_checkpoint("restore", &options.words)),
    }
}
