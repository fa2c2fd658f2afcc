//! `berth why`: the chain of causes.

use std::fmt::Write as _;

use berth_control::message::Cause;
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{format, json_text};

/// Of what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The container, the link, or `boot`; `link` and a link's name if a container has that name, too; without one, everything that is wrong
    #[arg(value_name = "NAME", num_args = 0..=2)]
    names: Vec<String>,
}

/// The chain of a container, or those of all that are not as they should be.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let machine = api.describe().await?;
    let chain = async |name: &str| {
        let causes = api.containers.why(name).await?;
        Ok::<Vec<Cause>, Error>(causes.into_iter().map(Cause::from).collect())
    };
    let mut causes = Vec::new();
    match arguments.names.as_slice() {
        [kind, name] if kind == "link" => causes = chain(&format!("link {name}")).await?,
        [_] => {
            for name in api.instances(&arguments.names).await? {
                causes.extend(chain(&name).await?);
            }
        }
        [_, second, ..] => return Err(Error::Refused(format!("one name at a time, or `link {second}`"))),
        [] => {
            let (of_containers, others): (Vec<&String>, Vec<&String>) =
                machine.problems.iter().partition(|problem| problem.starts_with("container "));
            let boot =
                |problem: &String| Cause { subject: "machine".into(), text: problem.clone(), ..Cause::default() };
            causes.extend(others.into_iter().map(boot));
            for problem in of_containers {
                let name = problem.trim_start_matches("container ").split(':').next().unwrap_or_default();
                causes.extend(chain(name).await?);
            }
        }
    }
    if json { json_text(&causes) } else { Ok(render(&causes, machine.uptime_ms)) }
}

fn render(causes: &[Cause], uptime_ms: u64) -> String {
    if causes.is_empty() {
        return "Nothing is wrong.\n".to_owned();
    }
    let mut text = String::new();
    for cause in causes {
        let indent = "  ".repeat(cause.depth as usize);
        let ago = (cause.at_us > 0).then(|| uptime_ms.saturating_sub(cause.at_us / 1000) / 1000);
        let when = ago.map(|seconds| format!(" ({} ago)", format::span(seconds))).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{indent}{}: {}{when}", cause.subject, cause.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_indented_and_has_times() {
        let cause = |depth, subject: &str, text: &str, at_us| Cause {
            depth,
            subject: subject.into(),
            text: text.into(),
            at_us,
        };
        let causes = [
            cause(0, "web", "is waiting: waits for db, which failed", 0),
            cause(1, "db", "is failed: exited with code 3", 0),
            cause(2, "db", "ran for 2s and exited with code 3", 60_000_000),
        ];
        let expected = "web: is waiting: waits for db, which failed\n  db: is failed: exited with code 3\n    \
            db: ran for 2s and exited with code 3 (1m 5s ago)\n";
        assert_eq!(render(&causes, 125_000), expected);
        assert_eq!(render(&[], 1), "Nothing is wrong.\n");
    }
}
