//! `berth login` and `logout`: who pulls and pushes, kept on the state partition.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::api::Api;
use super::error::Error;
use super::image::end;
use super::told;

/// Where to, and as whom.
#[derive(Debug, Args)]
pub struct Login {
    /// The user's name; asked for if absent
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password or access token from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry; Docker Hub if absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = host)]
    registry: String,
}

/// Where from.
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry; Docker Hub if absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = host)]
    registry: String,
}

/// A registry as people copy it from their browser, or as docker writes its own: host and port of it.
#[expect(clippy::unnecessary_wraps, reason = "what clap asks for")]
fn host(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    Ok(rest.map_or(text, |rest| rest.split('/').next().unwrap_or(rest)).to_owned())
}

/// Asks the registry first, and keeps what it takes.
pub async fn login(api: &Api, arguments: &Login, json: bool) -> Result<String, Error> {
    let Login { username, registry, password_stdin } = arguments;
    let username = match username {
        Some(name) => name.clone(),
        None if *password_stdin => {
            return Err(Error::Refused("the password comes from standard input: give --username too".to_owned()));
        }
        None => ask("Username: ", true)?,
    };
    let password = if *password_stdin { whole(io::stdin().lock())? } else { ask("Password: ", false)? };
    end(api.images.login(registry, &username, &password).await?)?;
    let done = serde_json::json!({ "username": username, "registry": registry });
    told(json, done, format!("{username} is logged in to {registry}\n"))
}

/// Forgets what was kept.
pub async fn logout(api: &Api, arguments: &Logout, json: bool) -> Result<String, Error> {
    end(api.images.logout(&arguments.registry).await?)?;
    told(json, serde_json::json!({ "registry": arguments.registry }), String::new())
}

/// All there is, without one line end behind it, as docker has it: the key files that some registries take have many lines.
fn whole(mut input: impl Read) -> Result<String, Error> {
    let mut text = String::new();
    input.read_to_string(&mut text).map_err(Error::Output)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn line(mut input: impl BufRead) -> Result<String, Error> {
    let mut text = String::new();
    input.read_line(&mut text).map_err(Error::Output)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// From the terminal; what is secret it does not show.
fn ask(what: &str, is_shown: bool) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Refused("there is no terminal to ask: use --username and --password-stdin".to_owned()));
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(Error::Output)?;
    write!(&terminal, "{what}").map_err(Error::Output)?;
    if is_shown {
        return line(BufReader::new(&terminal));
    }
    let before = tcgetattr(&terminal).map_err(|error| Error::Output(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // Whoever interrupts this must not be left with a terminal that shows nothing.
    let ended = signals().map_err(Error::Output)?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|error| Error::Output(error.into()))?;
    let password = wait(&terminal, &ended).and_then(|()| line(BufReader::new(&terminal)));
    tcsetattr(&terminal, OptionalActions::Flush, &before).map_err(|error| Error::Output(error.into()))?;
    writeln!(&terminal).map_err(Error::Output)?;
    password
}

/// Those that end a program at its terminal, from now on as something to be read.
fn signals() -> io::Result<SignalFd> {
    let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Until a line can be read, or a signal has come, which is an error.
fn wait(input: &impl AsFd, ended: &SignalFd) -> Result<(), Error> {
    loop {
        let mut polled = [PollFd::new(input, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Output(error.into())),
        }
        let [line, _] = polled.map(|polled| !polled.revents().is_empty());
        if let Ok(Some(signal)) = ended.read_signal() {
            return Err(Error::Ended(128_u8.saturating_add(u8::try_from(signal.ssi_signo).unwrap_or(u8::MAX))));
        }
        if line {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        assert_eq!(line(&b"a b \r\nnext"[..]).unwrap(), "a b ");
        assert_eq!(line(&b"secret"[..]).unwrap(), "secret");
        for (given, meant) in [("a b \r\n", "a b "), ("secret", "secret"), ("{\n \"key\": 1\n}\n", "{\n \"key\": 1\n}")]
        {
            assert_eq!(whole(given.as_bytes()).unwrap(), meant);
        }
    }

    #[test]
    fn a_registry_is_its_host_and_port() {
        for (given, meant) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://r.example:5000/", "r.example:5000"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(host(given).unwrap(), meant);
        }
    }

    #[test]
    fn a_signal_ends_the_wait_for_a_secret() {
        let (input, mut writer) = io::pipe().unwrap();
        let ended = signals().unwrap();
        nix::sys::signal::raise(Signal::SIGINT).unwrap();
        assert!(matches!(wait(&input, &ended), Err(Error::Ended(130))));
        writer.write_all(b"secret\n").unwrap();
        wait(&input, &ended).unwrap();
    }
}
