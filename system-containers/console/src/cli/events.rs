//! `berth events`: what happens to containers, as docker's has it: from now on, or since a moment, or until one.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use berth_control::message::Container;
use clap::Args;
use serde::Serialize;

use super::api::Api;
use super::error::Error;
use super::follow::{Change, Changes};
use super::{format, logs};

/// Which changes.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Also what has happened since a moment (2026-11-22T10:30, UTC without a zone) or within a time (90s, 1h30m, 1d), as far
    /// as it is remembered: the last 256 changes
    #[arg(long, value_name = "TIME", value_parser = logs::since)]
    since: Option<u64>,
    /// End at a moment; one that is past shows what is remembered from before
    #[arg(long, value_name = "TIME", value_parser = logs::since)]
    until: Option<u64>,
    /// Only those with this: container=, event= (a state), image=; of several of one kind any
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<(Key, String)>,
    /// The containers; all if there is none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What a filter looks at; docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Container,
    Event,
    Image,
}

const KEYS: &[(&str, Key)] = &[("container", Key::Container), ("event", Key::Event), ("image", Key::Image)];

fn filter(text: &str) -> Result<(Key, String), String> {
    super::filter::parse(text, KEYS)
}

impl Arguments {
    fn shows(&self, container: &Container) -> bool {
        let fits = |key, found: &str| super::filter::fits(&self.filters, &key, |value| value == found);
        (self.names.is_empty() || self.names.contains(&container.name))
            && fits(Key::Container, &container.name)
            && fits(Key::Event, format::container_state(container.state))
            && fits(Key::Image, &container.image)
    }

    /// The same, with containers in place of names that stand for several. An error if one does not exist.
    async fn with_instances(&self, api: &Api) -> Result<Self, Error> {
        let names = api.instances(&self.names).await?;
        for name in &names {
            api.inspect(name).await?;
        }
        Ok(Self { names, ..self.clone() })
    }

    /// Whether what is remembered is wanted, at this time.
    fn looks_back(&self, now_us: u64) -> Option<u64> {
        self.since.or(self.until.filter(|until| *until <= now_us).map(|_| 0))
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct Event<'a> {
    time: String,
    #[serde(flatten)]
    container: &'a Container,
}

/// Prints changes of states, as they happen, until it is interrupted or its time is up.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<(), Error> {
    let begun_us = format::now_us();
    let mut changes = Changes::begin(api).await?;
    let arguments = &changes.during(arguments.with_instances(api)).await?;
    let mut told = Told::default();
    if let Some(since_us) = arguments.looks_back(begun_us) {
        for change in changes.during(api.containers.changes_since(since_us)).await? {
            let container = change.container.into();
            if arguments.until.is_none_or(|until| change.at_us <= until) {
                print(arguments, &container, change.at_us, json)?;
            }
            if change.at_us >= begun_us {
                told.add(container);
            }
        }
    }
    let left = |until: u64| Duration::from_micros(until.saturating_sub(format::now_us()));
    let end = async {
        match arguments.until {
            Some(until) => tokio::time::sleep(left(until)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let change = tokio::select! {
            biased;
            () = &mut end => return Ok(()),
            change = changes.next() => change?,
        };
        match change {
            Change::Container(container) if told.knows(&container) => {}
            Change::Container(container) => print(arguments, &container, format::now_us(), json)?,
            Change::Missed(count) => {
                eprintln!(
                    "{count} changes are missing here: the output was not read in time; `berth ps --all` shows the states"
                );
            }
        }
    }
}

/// What was remembered and comes as a signal too: it happened between the two questions.
#[derive(Debug, Default)]
struct Told(VecDeque<Container>);

impl Told {
    fn add(&mut self, container: Container) {
        self.0.push_back(container);
    }

    /// Whether a signal is of something that was told already. Signals come in the order of what is remembered.
    fn knows(&mut self, container: &Container) -> bool {
        let found = self.0.iter().position(|told| told == container);
        match found {
            Some(index) => drop(self.0.drain(..=index)),
            None => self.0.clear(),
        }
        found.is_some()
    }
}

fn print(arguments: &Arguments, container: &Container, at_us: u64, json: bool) -> Result<(), Error> {
    if !arguments.shows(container) {
        return Ok(());
    }
    let line = if json {
        let event = Event { time: format::moment(at_us), container };
        serde_json::to_string(&event).map_err(|error| Error::Output(error.into()))?
    } else {
        text(container, at_us)
    };
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Error::Output)
}

fn text(container: &Container, at_us: u64) -> String {
    let mut line = format!("{} {} {}", format::moment(at_us), container.name, format::container_state(container.state));
    if !container.reason.is_empty() {
        line.push_str(": ");
        line.push_str(&container.reason);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::api::peer;
    use super::*;
    use berth_control::message::ContainerState;

    fn container(state: ContainerState) -> Container {
        let (image, reason) = ("web:1".into(), "exited with code 3".into());
        Container { image, reason, ..peer::container("job", state) }
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(text: &str) -> Arguments {
        <Line as clap::Parser>::try_parse_from(text.split(' ')).unwrap().arguments
    }

    #[test]
    fn an_event_is_a_line_with_its_reason() {
        let line = text(&container(ContainerState::Failed), 0);
        assert_eq!(line, "1970-01-01T00:00:00.000000Z job failed: exited with code 3");
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_those_of_several_are_not() {
        let failed = container(ContainerState::Failed);
        for shown in ["events", "events job", "events -f event=failed -f event=stopped --filter container=job"] {
            assert!(line(shown).shows(&failed), "{shown}");
        }
        for hidden in ["events web", "events -f event=running", "events -f container=job -f image=web"] {
            assert!(!line(hidden).shows(&failed), "{hidden}");
        }
        assert!(<Line as clap::Parser>::try_parse_from(["events", "-f", "colour=red"]).is_err());
    }

    #[test]
    fn what_is_remembered_is_for_those_who_look_back() {
        assert_eq!(line("events").looks_back(10), None);
        assert_eq!(line("events --since 1970-01-02").looks_back(10), Some(86_400_000_000));
        assert_eq!(line("events --until 1970-01-01").looks_back(10), Some(0));
        assert_eq!(line("events --until 1970-01-02").looks_back(10), None);
    }

    #[test]
    fn what_comes_both_ways_is_told_once() {
        let mut told = Told::default();
        let all = [ContainerState::Starting, ContainerState::Running, ContainerState::Failed].map(container);
        all.iter().cloned().for_each(|container| told.add(container));
        // The first was before the signals began.
        assert!(told.knows(&all[1]) && told.knows(&all[2]));
        assert!(!told.knows(&all[1]), "it happened again");
    }
}
