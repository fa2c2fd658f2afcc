//! `berth login` and `logout`: who pulls and pushes, kept on the state partition.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::api::Api;
use super::error::Error;
use super::image::end;
use super::told;

/// Where to, and as whom.
#[derive(Debug, Args)]
pub struct Login {
    /// The user's name
    #[arg(short, long, value_name = "NAME")]
    username: String,
    /// Read the password or access token from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry; Docker Hub if absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// Where from.
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry; Docker Hub if absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// Asks the registry first, and keeps what it takes.
pub async fn login(api: &Api, arguments: &Login, json: bool) -> Result<String, Error> {
    let Login { username, registry, password_stdin } = arguments;
    let password = if *password_stdin { line(io::stdin().lock())? } else { ask()? };
    end(api.images.login(registry, username, &password).await?)?;
    let done = serde_json::json!({ "username": username, "registry": registry });
    told(json, done, format!("{username} is logged in to {registry}\n"))
}

/// Forgets what was kept.
pub async fn logout(api: &Api, arguments: &Logout, json: bool) -> Result<String, Error> {
    end(api.images.logout(&arguments.registry).await?)?;
    told(json, serde_json::json!({ "registry": arguments.registry }), String::new())
}

fn line(mut input: impl BufRead) -> Result<String, Error> {
    let mut text = String::new();
    input.read_line(&mut text).map_err(Error::Output)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// From the terminal, which does not show it.
fn ask() -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Refused("there is no terminal to ask for the password: use --password-stdin".to_owned()));
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(Error::Output)?;
    write!(&terminal, "Password: ").map_err(Error::Output)?;
    let before = tcgetattr(&terminal).map_err(|error| Error::Output(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|error| Error::Output(error.into()))?;
    let password = line(BufReader::new(&terminal));
    tcsetattr(&terminal, OptionalActions::Flush, &before).map_err(|error| Error::Output(error.into()))?;
    writeln!(&terminal).map_err(Error::Output)?;
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        assert_eq!(line(&b"a b \r\nnext"[..]).unwrap(), "a b ");
        assert_eq!(line(&b"secret"[..]).unwrap(), "secret");
    }
}
