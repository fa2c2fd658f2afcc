//! `berth exec`: a further program in a running container, on this command's own streams.
//!
//! Detached, it returns when the program has begun, and nobody learns how it ends. Otherwise this command stands between the
//! program and its own streams, as [`streams`] has it. With a terminal it gets the master and stands between it and the
//! terminal it was typed on.

mod streams;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_config::User;
use berth_control::dbus::Execution;
use berth_control::message::ExecutionEnd;
use clap::Args;

use self::streams::Streams;
use super::api::Api;
use super::error::Error;
use super::{session, terminal};

/// What runs, where and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Return when it has begun; what the program prints is lost, and -i and -t, which docker takes beside it, change nothing
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Make a terminal for the program
    #[arg(short, long)]
    tty: bool,
    /// A variable for the program; without `=VALUE`, this command's own
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    environment: Vec<String>,
    /// A file with variables, one a line
    #[arg(long = "env-file", value_name = "FILE")]
    environment_files: Vec<PathBuf>,
    /// Who the program runs as: names of the container's /etc/passwd and /etc/group, or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<User>,
    /// Where the program starts
    #[arg(short = 'w', long = "workdir", value_name = "PATH")]
    directory: Option<String>,
    /// The container; of several replicas it is the first, unless one is named
    #[arg(value_name = "NAME")]
    name: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it and returns when it has ended, or begun if it is detached; a code other than 0 is an error.
pub async fn run(api: &Api, arguments: Arguments) -> Result<(), Error> {
    if arguments.tty && arguments.interactive && !arguments.detach {
        session::require_terminal()?;
    }
    let size = (arguments.tty && !arguments.detach).then(terminal::size);
    let execution = Execution {
        arguments: Some(arguments.command),
        environment: Some(variables(&arguments.environment_files, arguments.environment)?),
        working_directory: arguments.directory,
        user: arguments.user.map(|user| user.to_string()),
        rows: size.map(|size| size.rows),
        columns: size.map(|size| size.columns),
        detached: arguments.detach.then_some(true),
    };
    let name = &api.first_instance(&arguments.name).await?;
    let end = if arguments.detach {
        let streams = vec![null()?.into(), null()?.into(), null()?.into()];
        api.containers.execute(name, execution, streams).await?.into()
    } else if arguments.tty {
        let (ours, theirs) = berth_terminal::pair().map_err(|error| Error::Output(error.into()))?;
        let end = api.containers.execute(name, execution, vec![theirs.into()]).await?;
        let end = OwnedFd::from(end);
        // Without one it ended before it had a terminal; the reason comes through the pipe.
        if let Some(master) = berth_terminal::receive(&ours).map_err(|error| Error::Output(error.into()))? {
            terminal::stand_in(master, arguments.interactive, end.as_fd()).map_err(Error::Output)?;
        }
        end
    } else {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let stdin = arguments.interactive.then(|| stdin.as_fd());
        let (streams, theirs) = Streams::new(stdin, stdout.as_fd(), stderr.as_fd()).map_err(Error::Output)?;
        let end = api.containers.execute(name, execution, theirs.map(Into::into).into()).await?;
        let end = OwnedFd::from(end);
        let copied = streams.copy_until(end.as_fd());
        // How the program ended is the command's own end in any case.
        return match (outcome(end), copied) {
            (Err(ended), Err(error)) => {
                eprintln!("Error: {error}");
                Err(ended)
            }
            (ended, copied) => ended.and(copied),
        };
    };
    outcome(end)
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

/// Those of the files, and those after them that count more.
pub fn variables(files: &[PathBuf], words: Vec<String>) -> Result<Vec<String>, Error> {
    let variables = [lines(files)?, words].concat();
    Ok(variables.iter().filter_map(|word| variable(word)).collect())
}

/// Those of files, without comments.
pub fn lines(files: &[PathBuf]) -> Result<Vec<String>, Error> {
    let mut all: Vec<String> = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(lines.map(str::to_owned));
    }
    Ok(all)
}

/// `KEY=VALUE`, or `KEY` for what this command has.
fn variable(word: &str) -> Option<String> {
    if word.contains('=') {
        return Some(word.to_owned());
    }
    std::env::var(word).ok().map(|value| format!("{word}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// `berth exec` with these arguments, and what PID 1 says of the program.
    async fn executed(line: &str, end: &str) -> Result<(), Error> {
        let (api, mut peer) = crate::cli::api::peer::pair().await;
        let arguments = Line::try_parse_from(line.split(' ')).unwrap().arguments;
        let answers = async {
            peer.answer("Instances", &vec!["web-1", "web-2"]).await;
            let call = peer.call("Execute").await;
            let (name, execution, streams): (String, Execution, Vec<zbus::wire::OwnedFd>) =
                call.body().deserialize().unwrap();
            assert_eq!((name.as_str(), streams.len(), execution.rows), ("web-1", 3, None));
            assert_eq!(execution.detached, Some(true));
            let (pipe, mut writer) = io::pipe().unwrap();
            io::Write::write_all(&mut writer, end.as_bytes()).unwrap();
            peer.reply(&call, &zbus::wire::OwnedFd::from(OwnedFd::from(pipe))).await;
        };
        tokio::join!(run(&api, arguments), answers).0
    }

    #[tokio::test]
    async fn a_program_runs_in_the_first_of_several_replicas() {
        // A terminal that nobody sees is none.
        executed("exec -dit web true", r#"{"exit_code":0,"reason":""}"#).await.unwrap();
    }

    #[tokio::test]
    async fn a_detached_program_that_cannot_begin_is_an_error() {
        let told = executed("exec -d web absent", r#"{"exit_code":127,"reason":"exec absent"}"#).await;
        assert!(matches!(told, Err(Error::Ended(127))), "{told:?}");
    }

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let user =
            |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.arguments.user.map(|it| it.to_string()));
        assert_eq!(user("exec -u www-data:adm web id").unwrap(), Some("www-data:adm".into()));
        assert_eq!(user("exec --user 1000 web id -u").unwrap(), Some("1000".into()));
        assert!(user("exec -u 1: web id").is_err());
    }

    #[test]
    fn variables_of_a_file_are_overridden_by_those_of_the_command_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# of the file\n\nA=1\nB=2\n").unwrap();
        let all = variables(&[file.path().to_owned()], vec!["A=3".into()]).unwrap();
        assert_eq!(all, ["A=1", "B=2", "A=3"]);
    }

    #[test]
    fn a_variable_without_a_value_is_this_commands() {
        assert_eq!(variable("A=b=c"), Some("A=b=c".into()));
        assert_eq!(variable("BERTH_NO_SUCH_VARIABLE"), None);
    }
}
