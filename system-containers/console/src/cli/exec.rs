//! `berth exec`: a further program in a running container, on this command's own streams.
//!
//! PID 1 gives the streams to the program itself, so this command only waits. With a terminal it gets the master and
//! stands between it and the terminal it was typed on.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use berth_control::dbus::Execution;
use berth_control::message::ExecutionEnd;
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{session, terminal};

/// What runs, where and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Make a terminal for the program
    #[arg(short, long)]
    tty: bool,
    /// A variable for the program; without `=VALUE`, this command's own
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    environment: Vec<String>,
    /// The user and group, as numbers inside the container
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<(u32, Option<u32>)>,
    /// Where the program starts
    #[arg(short = 'w', long = "workdir", value_name = "PATH")]
    directory: Option<String>,
    /// The container
    #[arg(value_name = "NAME")]
    name: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it and returns when it has ended; a code other than 0 is an error.
pub async fn run(api: &Api, arguments: Arguments) -> Result<(), Error> {
    if arguments.tty && arguments.interactive {
        session::require_terminal()?;
    }
    let size = arguments.tty.then(terminal::size);
    let execution = Execution {
        arguments: Some(arguments.command),
        environment: Some(arguments.environment.iter().filter_map(|word| variable(word)).collect()),
        working_directory: arguments.directory,
        uid: arguments.user.map(|(uid, _)| uid),
        gid: arguments.user.and_then(|(_, gid)| gid),
        rows: size.map(|size| size.rows),
        columns: size.map(|size| size.columns),
    };
    let name = arguments.name.as_str();
    let end = if arguments.tty {
        let (ours, theirs) = berth_terminal::pair().map_err(|error| Error::Output(error.into()))?;
        let end = api.containers.execute(name, execution, vec![theirs.into()]).await?;
        let end = OwnedFd::from(end);
        // Without one it ended before it had a terminal; the reason comes through the pipe.
        if let Some(master) = berth_terminal::receive(&ours).map_err(|error| Error::Output(error.into()))? {
            terminal::stand_in(master, arguments.interactive, end.as_fd()).map_err(Error::Output)?;
        }
        end
    } else {
        let stdin = if arguments.interactive { copy(io::stdin())? } else { null()? };
        let streams = vec![stdin.into(), copy(io::stdout())?.into(), copy(io::stderr())?.into()];
        api.containers.execute(name, execution, streams).await?.into()
    };
    outcome(end)
}

fn copy(stream: impl AsFd) -> Result<OwnedFd, Error> {
    stream.as_fd().try_clone_to_owned().map_err(Error::Output)
}

fn null() -> Result<OwnedFd, Error> {
    std::fs::File::open("/dev/null").map(Into::into).map_err(Error::Output)
}

/// Waits for the end and tells it.
fn outcome(pipe: OwnedFd) -> Result<(), Error> {
    let mut text = String::new();
    std::fs::File::from(pipe).read_to_string(&mut text).map_err(Error::Output)?;
    let end: ExecutionEnd = serde_json::from_str(&text)
        .map_err(|_| Error::Refused("PID 1 has not told how the program ended; `dmesg` may say more".into()))?;
    if !end.reason.is_empty() {
        eprintln!("Error: {}", end.reason);
    }
    match end.exit_code {
        0 => Ok(()),
        code => Err(Error::Ended(code)),
    }
}

/// `KEY=VALUE`, or `KEY` for what this command has.
pub fn variable(word: &str) -> Option<String> {
    if word.contains('=') {
        return Some(word.to_owned());
    }
    std::env::var(word).ok().map(|value| format!("{word}={value}"))
}

/// `1000` or `1000:100`.
fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| format!("{text:?} is not a number; look it up in the container's /etc/passwd"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_with_or_without_a_group() {
        assert_eq!(user("1000"), Ok((1000, None)));
        assert_eq!(user("0:7"), Ok((0, Some(7))));
        for text in ["", "www", "1:", "-1", "1:2:3"] {
            assert!(user(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_this_commands() {
        assert_eq!(variable("A=b=c"), Some("A=b=c".into()));
        assert_eq!(variable("BERTH_NO_SUCH_VARIABLE"), None);
    }
}
