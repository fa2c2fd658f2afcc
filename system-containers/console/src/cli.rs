//! The `berth` command: what people and scripts type.
//!
//! Everything it knows comes over the control API, but for `config check`, which works without one. Human tables by
//! default, `--json` for scripts. Exit codes are docker's where the word is docker's: 0, 1 for an error, 125 for a
//! command line that cannot be understood.

mod advice;
mod answers;
mod api;
mod apply;
mod aside;
mod audit;
mod boot;
mod completion;
mod config;
mod containers;
mod create;
mod definition;
mod error;
mod events;
mod exec;
mod filter;
mod follow;
mod format;
mod image;
mod images;
mod inspect;
mod login;
mod logs;
mod network;
mod power;
mod prune;
mod ps;
mod run;
mod session;
mod snapshot;
mod stats;
mod status;
mod table;
mod template;
mod terminal;
mod volumes;
mod why;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use berth_control::message::PowerAction;
use clap::{Args, Parser, Subcommand};

use api::Api;
use containers::Names;
use error::Error;
pub(crate) use snapshot::{Snapshot, snapshot, watch};

/// A command line that cannot be understood, or a container that cannot be made; what docker returns for them.
const USAGE: u8 = 125;

/// Runs containers and nothing else.
#[derive(Debug, Parser)]
#[command(name = "berth", version, about = "Looks at this machine and its containers, and tells them what to do")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Options {
    /// Write JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    /// The control API's socket
    #[arg(long, global = true, value_name = "PATH", default_value = berth_control::dbus::SOCKET_PATH, hide = true)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How the machine is: state, addresses, problems
    Status,
    /// List the containers
    Ps(ps::Arguments),
    /// Everything about containers, as JSON or as a template says
    Inspect(inspect::Arguments),
    /// Say why a container, a link or the boot is as it is, or what is wrong with the machine
    Why(why::Arguments),
    /// List what the configuration loosens, and what images must show
    Audit,
    /// What containers use: processor, memory, disks
    Stats(stats::Arguments),
    /// The same, the busiest first
    Top(stats::Arguments),
    /// Follow what happens to containers
    Events(events::Arguments),
    /// Wait until containers have ended, and print their exit codes
    Wait(Names),
    /// Make a container and run it
    #[command(disable_help_flag = true, override_usage = "berth run [OPTIONS] <IMAGE> [COMMAND]...")]
    Run(Box<run::Arguments>),
    /// Make a container that waits for its start
    #[command(disable_help_flag = true, override_usage = "berth create [OPTIONS] <IMAGE> [COMMAND]...")]
    Create(Box<create::Arguments>),
    /// Talk to a container that runs: its output, its standard input, its terminal
    Attach(run::Attach),
    /// Remove containers that no configuration declares
    Rm(containers::Remove),
    /// Let containers stand still
    Pause(Names),
    /// Let them go on
    Unpause(Names),
    /// Run a further program in a running container
    Exec(exec::Arguments),
    /// Show what a container has printed
    Logs(logs::Arguments),
    /// Show what the boot did and how long each step took, or why earlier ones ended
    Boot(boot::Arguments),
    /// List the images that are here
    Images(images::list::Arguments),
    /// Bring an image here from its registry
    Pull(images::Pull),
    /// Look at images, bring and remove them, with docker's words
    #[command(subcommand)]
    Image(image::Image),
    /// Take an image to the registry in its name
    Push(images::Push),
    /// Keep who pulls from a registry and pushes there
    Login(login::Login),
    /// Forget it
    Logout(login::Logout),
    /// Write images to an archive
    Save(image::Save),
    /// Take images from an archive
    #[command(visible_alias = "load")]
    Import(image::Import),
    /// Give an image another name
    Tag(image::Tag),
    /// Remove images, by their names
    Rmi(image::Remove),
    /// Remove images that no container needs
    Prune(prune::Arguments),
    /// Look at volumes, make and remove them
    #[command(subcommand)]
    Volume(volumes::Command),
    /// Look at configurations
    #[command(subcommand)]
    Config(config::Command),
    /// Show what a configuration would change, and change nothing
    Plan(apply::Files),
    /// Look at the machine's links, or change them
    Network(network::Arguments),
    /// Put a configuration in force
    Apply(apply::Arguments),
    /// Keep the configuration that `apply --confirm` has put in force
    Confirm,
    /// Start containers that do not run
    Start(run::Start),
    /// Stop containers: their stop signal, then SIGKILL after their time-out
    Stop(containers::End),
    /// Stop containers and start them again
    Restart(containers::End),
    /// Send a signal to a container's first process
    Kill(containers::Kill),
    /// Print a script for a shell that completes this command's words, and names of containers, images, volumes and networks
    Completion {
        /// Whose language it is in
        shell: clap_complete::Shell,
    },
    /// Let PID 1 execute itself anew; no container notices
    Reexec(power::Reexecution),
    /// Stop everything and start the machine again
    Reboot(power::Arguments),
    /// Stop everything and switch the machine off
    #[command(name = "poweroff")]
    PowerOff(power::Arguments),
    /// Stop everything and the processor, and leave the power on
    Halt(power::Arguments),
}

/// The program `berth`, and `poweroff`, `reboot` and `halt`, which are other names for its subcommands.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(by_name(std::env::args_os().collect())) {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is nobody left to tell if this cannot be written.
            let _ = error.print();
            advice::on(&error).iter().for_each(|advice| eprintln!("\n{advice}"));
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Error::Told) => ExitCode::FAILURE,
        Err(Error::Ended(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `poweroff` becomes `berth poweroff`.
fn by_name(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().and_then(|path| std::path::Path::new(path).file_name()).and_then(|name| name.to_str());
    if let Some(name @ ("poweroff" | "reboot" | "halt")) = name {
        let name = OsString::from(name);
        words.insert(1, name);
    }
    words
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { command, options } = arguments;
    if let Command::Config(config::Command::Check(check)) = command {
        return config::check(&check, options.json, &mut io::stdout().lock());
    }
    if let Command::Completion { shell } = command {
        return io::stdout().lock().write_all(completion::script(shell).as_bytes()).map_err(Error::Output);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Output)?;
    // As a pointer to a trait, or the largest function of the image would be compiled into each caller of its poll.
    let asking: Pin<Box<dyn Future<Output = Result<String, Error>> + '_>> = Box::pin(ask(command, &options));
    let written = runtime.block_on(asking)?;
    let mut output = io::stdout().lock();
    output.write_all(written.as_bytes()).and_then(|()| output.flush()).map_err(Error::Output)
}

/// What is to be printed, for the commands that print at their end.
async fn ask(command: Command, options: &Options) -> Result<String, Error> {
    let api = match command {
        Command::Run(arguments) => return run::run(&options.socket, *arguments, options.json).await,
        Command::Reboot(_) => return power::run(&options.socket, PowerAction::Reboot, options.json).await,
        Command::PowerOff(_) => return power::run(&options.socket, PowerAction::PowerOff, options.json).await,
        Command::Halt(_) => return power::run(&options.socket, PowerAction::Halt, options.json).await,
        _ => Api::connect(&options.socket).await?,
    };
    let json = options.json;
    match command {
        Command::Status => status::run(&api, json).await,
        Command::Ps(arguments) => ps::run(&api, &arguments, json).await,
        Command::Boot(arguments) => boot::run(&api, &arguments, json).await,
        Command::Logs(arguments) => logs::run(&api, &arguments, json).await.map(|()| String::new()),
        Command::Config(_) => config::show(&api, json).await,
        Command::Plan(files) => apply::plan(&api, &files, json).await,
        Command::Apply(arguments) => apply::run(&api, &arguments, json).await,
        Command::Network(arguments) => network::run(&api, &arguments, json).await,
        Command::Confirm => apply::confirm(&api, json).await,
        Command::Start(arguments) => run::start(&api, arguments, json).await,
        Command::Stop(end) => containers::stop(&api, &end, json).await,
        Command::Restart(end) => containers::restart(&api, &end, json).await,
        Command::Inspect(arguments) => inspect::run(&api, &arguments).await,
        Command::Why(arguments) => why::run(&api, &arguments, json).await,
        Command::Audit => audit::run(&api, json).await,
        Command::Stats(arguments) => {
            stats::run(&api, &arguments, stats::Order::Name, json).await.map(|()| String::new())
        }
        Command::Top(arguments) => {
            stats::run(&api, &arguments, stats::Order::Busiest, json).await.map(|()| String::new())
        }
        Command::Events(arguments) => events::run(&api, &arguments, json).await.map(|()| String::new()),
        Command::Wait(names) => follow::wait(&api, &names, json).await,
        Command::Exec(arguments) => exec::run(&api, arguments).await.map(|()| String::new()),
        Command::Create(arguments) => create::run(&api, *arguments, json).await,
        Command::Attach(arguments) => run::attach(&api, arguments).await,
        Command::Rm(arguments) => containers::remove(&api, &arguments, json).await,
        Command::Pause(names) => containers::each(&api, containers::Action::Pause, &names, json).await,
        Command::Unpause(names) => containers::each(&api, containers::Action::Unpause, &names, json).await,
        Command::Kill(kill) => containers::kill(&api, &kill, json).await,
        Command::Images(arguments) => images::list::run(&api, &arguments, json).await,
        Command::Image(command) => image::run(&api, command, json).await,
        Command::Push(push) => images::push(&api, &push, json).await,
        Command::Login(arguments) => login::login(&api, &arguments, json).await,
        Command::Logout(arguments) => login::logout(&api, &arguments, json).await,
        Command::Save(arguments) => image::save(&api, &arguments, json).await,
        Command::Import(arguments) => image::import(&api, &arguments, json).await,
        Command::Tag(arguments) => image::tag(&api, &arguments, json).await,
        Command::Rmi(arguments) => image::remove(&api, &arguments, json).await,
        Command::Pull(pull) => images::pull(&api, &pull, json).await,
        Command::Reexec(arguments) => power::reexecute(&api, &arguments, json).await,
        Command::Prune(arguments) => prune::run(&api, &arguments, json).await,
        Command::Volume(command) => volumes::run(&api, command, json).await,
        Command::Run(_) | Command::Reboot(_) | Command::PowerOff(_) | Command::Halt(_) | Command::Completion { .. } => {
            Ok(String::new())
        }
    }
}

/// A value as JSON for people's eyes and programs alike, with its line break.
fn json_text<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?;
    text.push('\n');
    Ok(text)
}

/// What a command that has no answer of its own says: its text to people, what was done to programs.
fn told(json: bool, done: serde_json::Value, text: String) -> Result<String, Error> {
    if json { json_text(&done) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn poweroff_is_a_command_of_its_own() {
        let words = by_name(vec!["/sbin/poweroff".into()]);
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert!(matches!(arguments.command, Command::PowerOff(_)));
        // What busybox's takes must not fail.
        assert!(Arguments::try_parse_from(by_name(vec!["reboot".into(), "-f".into()])).is_ok());
    }

    #[test]
    fn the_name_of_the_file_is_not_a_command_otherwise() {
        assert_eq!(by_name(vec!["/usr/bin/berth".into(), "ps".into()]).len(), 2);
    }

    #[test]
    fn a_flag_that_only_docker_has_is_answered_with_berths_way() {
        for (line, part) in [
            ("berth run --link=db nginx", "--network"),
            ("berth create --storage-opt=size=1G nginx", "--storage"),
            ("berth inspect -s web", "berth ps -s"),
            ("berth exec --privileged web id", "cap_add"),
            ("berth exec --detach-keys=ctrl-x web sh", "berth attach"),
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert!(advice::on(&error).unwrap().contains(part), "{line}");
        }
        assert_eq!(advice::on(&Arguments::try_parse_from(["berth", "ps", "--nonsense"]).unwrap_err()), None);
    }
}
