//! `berth reboot`, `poweroff`, `halt`, `reexec`.
//!
//! Where the control API is not there, PID 1 is told by signal, so that a machine without its `control` container
//! still goes down in order.

use std::fs::File;
use std::path::{Path, PathBuf};

use berth_control::message::PowerAction;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::api::Api;
use super::error::Error;
use super::{json_text, told};

/// What busybox's commands of these names take. All of it means what happens anyway or is not needed: containers are
/// stopped in order, file systems are always synced.
#[derive(Debug, Args)]
pub struct Arguments {
    /// For scripts that give it; without effect
    #[arg(short, hide = true)]
    force: bool,
    /// For scripts that give it; without effect
    #[arg(short, hide = true)]
    no_sync: bool,
}

/// Asks for it and returns when it is under way.
pub async fn run(socket: &Path, action: PowerAction, json: bool) -> Result<String, Error> {
    let text = ask(socket, action).await?;
    told(json, serde_json::json!({ "action": action }), text)
}

async fn ask(socket: &Path, action: PowerAction) -> Result<String, Error> {
    let api = match Api::connect(socket).await {
        Ok(api) => api,
        Err(error @ Error::Connect { .. }) => return by_signal(action, error),
        Err(error) => return Err(error),
    };
    match action {
        PowerAction::PowerOff => api.machine.power_off().await?,
        PowerAction::Reboot => api.machine.reboot().await?,
        PowerAction::Halt => api.machine.halt().await?,
    }
    Ok(String::new())
}

/// What PID 1 becomes.
#[derive(Debug, Args)]
pub struct Reexecution {
    /// Another program of Berth's, such as a newer one; the one that runs if there is none
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Lets PID 1 execute itself anew, or another program, and returns when the next program answers.
pub async fn reexecute(api: &Api, arguments: &Reexecution, json: bool) -> Result<String, Error> {
    match &arguments.program {
        Some(path) => {
            let file = File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            api.machine.reexecute_program(std::os::fd::OwnedFd::from(file).into()).await?;
        }
        None => api.machine.reexecute().await?,
    }
    let machine = api.machine.describe().await?;
    if json {
        return json_text(&serde_json::json!({ "version": machine.version }));
    }
    Ok(format!("PID 1 is Berth {} and has executed itself anew\n", machine.version))
}

/// Berth's PID 1 takes the signals that busybox's does.
fn by_signal(action: PowerAction, unreachable: Error) -> Result<String, Error> {
    // Nobody else's process 1: this command may have been copied to another system.
    // After `berth reexec --program` it is a file in memory, `/memfd:berth (deleted)`.
    let is_berth = |path: PathBuf| path.ends_with("berth") || path.to_string_lossy().starts_with("/memfd:berth");
    let ours = std::fs::read_link("/proc/1/exe").is_ok_and(is_berth);
    if !ours {
        return Err(unreachable);
    }
    let signal = match action {
        PowerAction::PowerOff => Signal::SIGUSR2,
        PowerAction::Reboot => Signal::SIGTERM,
        PowerAction::Halt => Signal::SIGUSR1,
    };
    kill(Pid::from_raw(1), signal).map_err(|_| unreachable)?;
    Ok("the control API does not answer; process 1 was told by signal\n".to_owned())
}
