//! What a container runs: the image's wishes under the configuration's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use berth_config::{Account, Command, Container, Health, Protocol, Signal, UserNamespace};
use berth_control::message::Port;

use crate::accounts::{self, ResolveError};
use crate::merged::Merged;
use crate::oci;

/// What programs expect to find; Docker's default.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No program.
    #[error("the image has neither entrypoint nor command: set `command` (or `entrypoint`)")]
    NoProgram,
    /// No such user.
    #[error(transparent)]
    Account(#[from] ResolveError),
    /// The image asks for a signal that does not exist.
    #[error("the image's stop signal {signal:?} does not exist: set `stop_signal`")]
    StopSignal {
        /// As the image has it.
        signal: String,
    },
    /// A working directory that depends on where one stands.
    #[error("the image's working directory {directory:?} is not absolute: set `working_dir`")]
    WorkingDirectory {
        /// As the image has it.
        directory: String,
    },
}

/// A process, all choices made.
#[derive(Debug)]
pub struct Process {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// Absolute.
    pub working_directory: String,
    /// Who it is.
    pub account: Account,
    /// What asks it to end.
    pub stop_signal: i32,
}

/// Decides everything about the process of a container.
pub fn build(
    name: &str,
    container: &Container,
    wishes: &oci::Process,
    image: &Merged,
) -> Result<Process, ProcessError> {
    let account = match &container.user {
        Some(user) => accounts::resolve(image, user.name(), user.group(), &container.group_add)?,
        None => {
            let user = wishes.user.as_deref().unwrap_or("");
            let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
            accounts::resolve(image, user, group, &container.group_add)?
        }
    };
    if container.security.user_namespace == UserNamespace::Auto {
        account.stays_within_range().map_err(ResolveError::from)?;
    }
    let stop_signal = match (container.stop_signal, wishes.stop_signal.as_deref().filter(|signal| !signal.is_empty())) {
        (Some(signal), _) => signal,
        (None, None) => Signal::TERM,
        (None, Some(signal)) => signal.parse().map_err(|_| ProcessError::StopSignal { signal: signal.to_owned() })?,
    };
    let working_directory = match (&container.working_dir, wishes.working_dir.as_deref()) {
        (Some(directory), _) => directory.as_str().to_owned(),
        (None, None | Some("")) => "/".to_owned(),
        (None, Some(directory)) if directory.starts_with('/') => directory.to_owned(),
        (None, Some(directory)) => return Err(ProcessError::WorkingDirectory { directory: directory.to_owned() }),
    };
    Ok(Process {
        arguments: arguments(container, wishes)?,
        environment: environment(name, container, wishes, &account.home),
        working_directory,
        account,
        stop_signal: stop_signal.number(),
    })
}

/// The image's health check, if it has one. Times that are shorter than a configuration may say are as long as that.
pub fn health(wishes: &oci::Process) -> Option<Health> {
    /// In microseconds, see `berth_config`'s check of health checks.
    const SHORTEST: u64 = 100_000;
    let check = wishes.healthcheck.as_ref()?;
    let (kind, words) = check.test.as_ref()?.split_first()?;
    let words = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let shell = wishes.shell.clone().filter(|shell| !shell.is_empty());
            let shell = shell.unwrap_or_else(|| ["/bin/sh", "-c"].map(str::to_owned).to_vec());
            [shell, words.to_vec()].concat()
        }
        _ => return None,
    };
    let exec = Command::new(words).ok().filter(|command| !command.words().is_empty())?;
    let time = |nanoseconds: u64, least: u64| {
        let wanted = (nanoseconds > 0).then(|| (nanoseconds / 1000).max(least));
        // Beyond 100 days it has its default.
        wanted.and_then(|wanted| format!("{wanted}us").parse().ok())
    };
    Some(Health {
        exec: Some(exec),
        interval: time(check.interval, SHORTEST),
        timeout: time(check.timeout, SHORTEST),
        retries: NonZeroU32::new(check.retries),
        start_period: time(check.start_period, 0),
        start_interval: time(check.start_interval, SHORTEST),
        ..Health::default()
    })
}

/// The most ranges of ports that an image is shown to expose. Every list of containers has them.
const EXPOSED: usize = 128;

/// The ports that an image says its program listens on, those that follow each other in one piece; what is none is left out,
/// as by Docker.
pub fn exposed(wishes: &oci::Process) -> Vec<Port> {
    let port = |text: &String| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, Protocol::Tcp.name()));
        let protocol: Protocol = protocol.parse().ok()?;
        Some(Port {
            host_address: String::new(),
            host_port: 0,
            container_port: number.parse().ok().filter(|number| *number > 0)?,
            further_ports: 0,
            protocol: protocol.name().to_owned(),
        })
    };
    let ports: Vec<Port> = wishes.exposed_ports.iter().flatten().filter_map(|(text, _)| port(text)).collect();
    joined(ports)
}

/// Ranges of single ports, in order, the first of them if there are many.
fn joined(mut ports: Vec<Port>) -> Vec<Port> {
    ports.sort_unstable_by(|left, right| {
        (&left.protocol, left.container_port).cmp(&(&right.protocol, right.container_port))
    });
    ports.dedup();
    let mut ranges: Vec<Port> = Vec::new();
    for port in ports {
        let behind = |last: &&mut Port| {
            let first = u32::from(last.container_port);
            last.protocol == port.protocol
                && first + u32::from(last.further_ports) + 1 == u32::from(port.container_port)
        };
        match ranges.last_mut().filter(behind) {
            Some(last) => last.further_ports += 1,
            None => ranges.push(port),
        }
    }
    ranges.sort_by_key(|range| range.container_port);
    ranges.truncate(EXPOSED);
    ranges
}

/// Compose's rule: an entry point of the configuration takes the image's command away with the image's entry point.
fn arguments(container: &Container, wishes: &oci::Process) -> Result<Vec<String>, ProcessError> {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let command = container.command.as_ref().map(|command| command.words().to_vec());
    let mut arguments = match &container.entrypoint {
        Some(entrypoint) => [entrypoint.words().to_vec(), command.unwrap_or_default()],
        None => [words(&wishes.entrypoint), command.unwrap_or_else(|| words(&wishes.cmd))],
    }
    .concat();
    arguments.iter_mut().for_each(|argument| argument.retain(|character| character != '\0'));
    if arguments.first().is_none_or(String::is_empty) { Err(ProcessError::NoProgram) } else { Ok(arguments) }
}

/// The image's variables, in its order, with the configuration's in place of those of the same name, and what every
/// container has.
fn environment(name: &str, container: &Container, wishes: &oci::Process, home: &str) -> Vec<String> {
    let hostname = container.hostname.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
    let given = [("PATH", SEARCH_PATH), ("HOSTNAME", &hostname), ("HOME", home)];
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    let of_image = wishes.env.iter().flatten().filter_map(|line| line.split_once('='));
    let of_image = of_image.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let configured = container.environment.variables().iter().map(|(name, value)| (name.clone(), value.clone()));
    let given = given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in given.chain(of_image).chain(configured) {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            continue;
        }
        match positions.get(&name) {
            Some(position) => variables[*position].1 = value,
            None => {
                positions.insert(name.clone(), variables.len());
                variables.push((name, value));
            }
        }
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(text: &str) -> Container {
        serde_json::from_str(&format!(r#"{{"image":"x"{text}}}"#)).unwrap()
    }

    fn wishes(text: &str) -> oci::Process {
        serde_json::from_str(text).unwrap()
    }

    fn built(container_text: &str, image_text: &str) -> Result<Process, ProcessError> {
        build("web", &container(container_text), &wishes(image_text), &Merged::new(Vec::new()).unwrap())
    }

    #[test]
    fn commands_combine_as_in_compose() {
        const IMAGE: &str = r#"{"Entrypoint":["e"],"Cmd":["c"]}"#;
        let run = |container: &str| arguments(&super::tests::container(container), &wishes(IMAGE)).unwrap().join(" ");
        assert_eq!(run(""), "e c");
        assert_eq!(run(r#","command":["x","y"]"#), "e x y");
        assert_eq!(run(r#","entrypoint":["z"]"#), "z");
        assert_eq!(run(r#","entrypoint":["z"],"command":["x"]"#), "z x");
        assert_eq!(run(r#","command":[]"#), "e");
        assert!(matches!(built("", "{}"), Err(ProcessError::NoProgram)));
    }

    #[test]
    fn variables_of_the_configuration_win() {
        let process = built(
            r#","command":["x"],"environment":{"A":"2","B":"3"},"hostname":"dock""#,
            r#"{"Env":["A=1","PATH=/bin","C=x=y","broken"]}"#,
        );
        let expected = ["PATH=/bin", "HOSTNAME=dock", "HOME=/", "A=2", "C=x=y", "B=3"];
        assert_eq!(process.unwrap().environment, expected);
    }

    #[test]
    fn the_images_health_check_is_understood() {
        let of = |check: &str| health(&wishes(&format!(r#"{{"Healthcheck":{check}}}"#)));
        let shell =
            of(r#"{"Test":["CMD-SHELL","curl -f http://localhost/ || exit 1"],"Interval":5000000000,"Retries":2}"#);
        let shell = shell.unwrap();
        assert_eq!(shell.exec.as_ref().unwrap().words()[..2], ["/bin/sh", "-c"]);
        assert_eq!((shell.interval, shell.retries(), shell.timeout), ("5s".parse().ok(), 2, None));
        let plain = of(r#"{"Test":["CMD","/check","-q"],"Timeout":1,"Interval":18446744073709551615}"#).unwrap();
        assert_eq!(plain.exec.unwrap().words(), ["/check", "-q"]);
        assert_eq!((plain.timeout, plain.interval), ("100ms".parse().ok(), None));
        for none in [r#"{"Test":["NONE"]}"#, r#"{"Test":[]}"#, "{}", "null", r#"{"Test":["CMD"]}"#] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn a_health_check_is_for_the_images_own_shell() {
        let words = |shell: &str| {
            let image = format!(r#"{{"Healthcheck":{{"Test":["CMD-SHELL","exit 1"]}}{shell}}}"#);
            health(&wishes(&image)).unwrap().exec.unwrap().words().join(" ")
        };
        assert_eq!(words(r#","Shell":["/bin/bash","-o","pipefail","-c"]"#), "/bin/bash -o pipefail -c exit 1");
        for none in ["", r#","Shell":null"#, r#","Shell":[]"#] {
            assert_eq!(words(none), "/bin/sh -c exit 1", "{none}");
        }
    }

    #[test]
    fn exposed_ports_are_in_order_and_none_is_made_up() {
        let image =
            r#"{"ExposedPorts":{"443/tcp":{},"80":{},"80/tcp":{},"53/udp":{},"0/tcp":{},"x/tcp":{},"9/dccp":{}}}"#;
        let found = exposed(&wishes(image));
        let shown: Vec<String> =
            found.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)).collect();
        assert_eq!(shown, ["53/udp", "80/tcp", "443/tcp"]);
        assert!(found.iter().all(|port| port.host_port == 0));
        assert_eq!(exposed(&wishes(r#"{"ExposedPorts":null}"#)), []);
    }

    #[test]
    fn exposed_ports_that_follow_each_other_are_one_range_and_many_are_left_out() {
        let shown = |ports: &mut dyn Iterator<Item = String>| {
            let ports: Vec<String> = ports.map(|port| format!(r#""{port}":{{}}"#)).collect();
            let found = exposed(&wishes(&format!(r#"{{"ExposedPorts":{{{}}}}}"#, ports.join(","))));
            found.into_iter().map(|port| (port.container_port, port.further_ports, port.protocol)).collect::<Vec<_>>()
        };
        let relay = (49_152..=65_535).map(|port| format!("{port}/udp"));
        let both = ["3478/udp", "3478/tcp", "3479/udp"].map(str::to_owned);
        let expected = [(3478, 0, "tcp"), (3478, 1, "udp"), (49_152, 16_383, "udp")];
        assert_eq!(shown(&mut both.into_iter().chain(relay)), expected.map(|(a, b, c)| (a, b, c.to_owned())));
        let odd = shown(&mut (0..30_000).map(|port| (2 * port + 1).to_string()));
        assert_eq!((odd.len(), &odd[127]), (EXPOSED, &(255, 0, "tcp".to_owned())));
    }

    #[test]
    fn a_further_group_is_looked_up_in_the_image() {
        let built = |groups: &str| built(&format!(r#","group_add":{groups}"#), r#"{"Cmd":["x"]}"#);
        // Numbers are PID 1's affair.
        assert_eq!(built("[44]").unwrap().account.additional_gids, [0]);
        let error = built(r#"[44,"video"]"#).unwrap_err();
        assert!(
            matches!(error, ProcessError::Account(_)) && error.to_string().contains("no group \"video\""),
            "{error}"
        );
    }

    #[test]
    fn a_user_that_the_container_has_not_is_refused_with_what_to_do() {
        let image = r#"{"Cmd":["x"],"User":"100000"}"#;
        let error = built("", image).unwrap_err().to_string();
        assert!(error.contains("user 100000 is above 65535") && error.contains("`user`"), "{error}");
        assert_eq!(built(r#","user":"7""#, image).unwrap().account.uid, 7);
        assert_eq!(built(r#","security":{"user_namespace":"host"}"#, image).unwrap().account.uid, 100_000);
    }

    #[test]
    fn signals_directories_and_users_come_from_the_configuration_first() {
        let image = r#"{"Cmd":["x"],"StopSignal":"SIGQUIT","WorkingDir":"/srv","User":"7:8"}"#;
        let process = built("", image).unwrap();
        assert_eq!((process.stop_signal, &*process.working_directory), (3, "/srv"));
        assert_eq!((process.account.uid, process.account.gid), (7, 8));
        let process = built(r#","stop_signal":"INT","working_dir":"/","user":"9""#, image).unwrap();
        assert_eq!((process.stop_signal, &*process.working_directory, process.account.uid), (2, "/", 9));
        assert!(matches!(built("", r#"{"Cmd":["x"],"WorkingDir":"srv"}"#), Err(ProcessError::WorkingDirectory { .. })));
        assert!(matches!(built("", r#"{"Cmd":["x"],"StopSignal":"99"}"#), Err(ProcessError::StopSignal { .. })));
    }
}
