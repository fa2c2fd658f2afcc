//! `berth run`, `attach` and `start`: a container on this command's own streams.
//!
//! Exit codes are docker's: the program's own, 125 if there is no container, 126 and 127 if its program cannot be run.

use std::path::Path;

use berth_control::message::ExecutionEnd;
use berth_terminal::Keys;
use clap::Args;

use super::api::Api;
use super::containers::{self, Action, Names};
use super::create::{self, New};
use super::error::Error;
use super::session::{self, Left, Manner};
use super::{USAGE, session::Session};

/// The exit code of who gave a program up that did not end of its signals: docker's client's.
const INTERRUPTED: u8 = 1;

/// What runs, and how this command stands to it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Return when it runs, and print its name
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    leaving: Leaving,
    #[command(flatten)]
    container: create::Arguments,
}

/// Whom to attach to.
#[derive(Debug, Args)]
pub struct Attach {
    /// Pass standard input on to nobody
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    leaving: Leaving,
    /// The container; of several replicas it is the first, unless one is named
    #[arg(value_name = "NAME")]
    name: String,
}

/// What is started, and how this command stands to it.
#[derive(Debug, Args)]
pub struct Start {
    /// Show what it prints, pass signals on and return its exit code; of one container, of several replicas the first
    #[arg(short, long)]
    attach: bool,
    /// The same, and pass standard input on
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    leaving: Leaving,
    #[command(flatten)]
    names: Names,
}

/// How one leaves without ending anything.
#[derive(Debug, Args)]
struct Leaving {
    /// The keys that leave a terminal and let the container run on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// Whether signals that this command gets are for the container
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
}

impl Leaving {
    fn manner(self, input: bool) -> Manner {
        Manner { input, keys: self.detach_keys, signals: self.sig_proxy }
    }
}

/// Makes a container, runs it, and returns when it has ended. A code other than 0 is an error.
pub async fn run(socket: &Path, arguments: Arguments, json: bool) -> Result<String, Error> {
    run_it(socket, arguments, json).await.map_err(|error| match error {
        Error::Ended(code) => Error::Ended(code),
        // There is no container, and so no code of a program.
        error => {
            eprintln!("Error: {error}");
            Error::Ended(USAGE)
        }
    })
}

async fn run_it(socket: &Path, arguments: Arguments, json: bool) -> Result<String, Error> {
    let Arguments { detach, leaving, container } = arguments;
    if container.tty && container.interactive && !detach {
        session::require_terminal()?;
    }
    let new = New::of(container)?;
    let api = Api::connect(socket).await?;
    let call = async |definition: String, options| api.containers.run(&definition, options, !detach).await;
    let (name, session) = new.make(&api, call).await?;
    let session = Session::of_a_start(session.into(), &name);
    if detach {
        return match session.wait_until_it_runs()? {
            Some(end) if !end.reason.is_empty() => Err(could_not_run(&name, &end)),
            _ => create::told(&name, json),
        };
    }
    outcome(&name, session.attend(leaving.manner(new.input))?)
}

/// Attaches to a container that runs, and returns when it has ended or this command has left.
pub async fn attach(api: &Api, arguments: Attach) -> Result<String, Error> {
    let Attach { no_stdin, leaving, name } = arguments;
    let name = api.first_instance(&name).await?;
    let session = Session::new(api.containers.attach(&name).await?.into());
    outcome(&name, session.attend(leaving.manner(!no_stdin))?)
}

/// Starts containers; attached, it returns when the one has ended or this command has left.
pub async fn start(api: &Api, arguments: Start, json: bool) -> Result<String, Error> {
    let Start { attach, interactive, leaving, names } = arguments;
    if !attach && !interactive {
        return containers::each(api, Action::Start, &names, json).await;
    }
    let [name] = names.names.as_slice() else {
        return Err(Error::Refused(
            "only one container at a time can be attached to; start the others without -a and -i".into(),
        ));
    };
    let name = &api.first_instance(name).await?;
    let session = Session::of_a_start(api.containers.start_attached(name).await?.into(), name);
    outcome(name, session.attend(leaving.manner(interactive))?)
}

fn outcome(name: &str, left: Left) -> Result<String, Error> {
    match left {
        Left::Ended(end) if !end.reason.is_empty() => Err(could_not_run(name, &end)),
        Left::Ended(ExecutionEnd { exit_code: 0, .. }) => Ok(String::new()),
        Left::Ended(end) => Err(Error::Ended(end.exit_code)),
        Left::Detached => {
            eprintln!("{name} runs on; `berth attach {name}` comes back to it");
            Ok(String::new())
        }
        Left::Interrupted => {
            eprintln!("{name} runs on; `berth attach {name}` comes back to it, and `berth kill {name}` ends it");
            Err(Error::Ended(INTERRUPTED))
        }
        Left::Replaced => Err(Error::Refused(format!(
            "another client has attached to {name}, or this one did not read for too long; the container runs on, and `berth \
             attach {name}` comes back to it"
        ))),
    }
}

fn could_not_run(name: &str, end: &ExecutionEnd) -> Error {
    eprintln!("Error: {name}: {}", end.reason);
    Error::Ended(end.exit_code)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use berth_control::channel::Channel;
    use berth_control::message::ToClient;

    use super::*;

    #[tokio::test]
    async fn the_first_of_several_replicas_is_started() {
        let (api, mut peer) = crate::cli::api::peer::pair().await;
        let leaving = Leaving { detach_keys: Keys::default(), sig_proxy: false };
        let names = Names { names: vec!["web".into()] };
        let (init, client) = Channel::pair().unwrap();
        init.send(&ToClient::Ended(ExecutionEnd { exit_code: 3, reason: String::new() }), &[]).unwrap();
        let answers = async {
            peer.answer("Instances", &vec!["web-1", "web-2"]).await;
            let call = peer.call("StartAttached").await;
            assert_eq!(call.body().deserialize::<String>().unwrap(), "web-1");
            peer.reply(&call, &zbus::wire::OwnedFd::from(OwnedFd::from(client))).await;
        };
        let started = start(&api, Start { attach: true, interactive: false, leaving, names }, false);
        assert!(matches!(tokio::join!(started, answers).0, Err(Error::Ended(3))));
    }

    #[test]
    fn who_gives_a_program_up_has_no_success() {
        assert!(matches!(outcome("web", Left::Interrupted), Err(Error::Ended(1))));
        assert!(outcome("web", Left::Detached).is_ok());
    }

    #[tokio::test]
    async fn the_first_of_several_replicas_is_attached_to() {
        let (api, mut peer) = crate::cli::api::peer::pair().await;
        let leaving = Leaving { detach_keys: Keys::default(), sig_proxy: false };
        let arguments = Attach { no_stdin: true, leaving, name: "web".into() };
        let (init, client) = Channel::pair().unwrap();
        let end = ExecutionEnd { exit_code: 3, reason: String::new() };
        init.send(&ToClient::Ended(end), &[]).unwrap();
        let answers = async {
            peer.answer("Instances", &vec!["web-1", "web-2"]).await;
            let call = peer.call("Attach").await;
            assert_eq!(call.body().deserialize::<String>().unwrap(), "web-1");
            peer.reply(&call, &zbus::wire::OwnedFd::from(OwnedFd::from(client))).await;
        };
        let (attached, ()) = tokio::join!(attach(&api, arguments), answers);
        assert!(matches!(attached, Err(Error::Ended(3))), "{attached:?}");
    }
}
