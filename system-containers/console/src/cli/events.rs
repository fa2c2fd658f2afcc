//! `berth events`: what happens to containers, as docker's has it: from now on, or since a moment, or until one.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use berth_control::dbus::ApiError;
use berth_control::message::Container;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::definition::Details;
use super::error::Error;
use super::filter::Label;
use super::follow::{Change, Changes};
use super::template::Template;
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
    /// Only those with this: container=, event= (a state), image=, label=KEY or KEY=VALUE, type=container; of several of one kind
    /// any, of labels all
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<(Key, String)>,
    /// Print this of each: {{.time}}, {{.name}}, {{.state}}, {{.Action}}; names are those of --json, and docker's; `json` for lines
    /// of JSON as docker's
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
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
    Label,
    Type,
}

const KEYS: &[(&str, Key)] = &[
    ("container", Key::Container),
    ("event", Key::Event),
    ("image", Key::Image),
    ("label", Key::Label),
    ("type", Key::Type),
];

fn filter(text: &str) -> Result<(Key, String), String> {
    match super::filter::parse(text, KEYS)? {
        (Key::Type, kind) if kind != "container" => {
            Err("only what happens to containers is told, type=container; `berth images` and `berth volume ls` show the rest".into())
        }
        filter => Ok(filter),
    }
}

impl Arguments {
    fn shows(&self, container: &Container) -> bool {
        let fits = |key, found: &str| super::filter::fits(&self.filters, &key, |value| value == found);
        (self.names.is_empty() || self.names.contains(&container.name))
            && fits(Key::Container, &container.name)
            && fits(Key::Event, format::container_state(container.state))
            && fits(Key::Image, &container.image)
    }

    fn wants_labels(&self) -> bool {
        self.filters.iter().any(|(key, _)| *key == Key::Label)
    }

    fn shows_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        super::filter::all_fit(&self.filters, &Key::Label, |label| Label::new(label).is_among(labels))
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
    let mut printer = Printer { api, arguments, json, labels: BTreeMap::new() };
    if let Some(since_us) = arguments.looks_back(begun_us) {
        for change in changes.during(api.containers.changes_since(since_us)).await? {
            let container = change.container.into();
            if arguments.until.is_none_or(|until| change.at_us <= until) {
                printer.print(&mut changes, &container, change.at_us).await?;
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
            Change::Container(container) => printer.print(&mut changes, &container, format::now_us()).await?,
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

/// Prints what is to be shown.
struct Printer<'a> {
    api: &'a Api,
    arguments: &'a Arguments,
    json: bool,
    /// As they were last: who has gone keeps them.
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl Printer<'_> {
    async fn print(&mut self, changes: &mut Changes, container: &Container, at_us: u64) -> Result<(), Error> {
        if !self.shows(changes, container).await? {
            return Ok(());
        }
        let mut output = io::stdout().lock();
        let line = self.line(container, at_us)?;
        writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Error::Output)
    }

    async fn shows(&mut self, changes: &mut Changes, container: &Container) -> Result<bool, Error> {
        let name = &container.name;
        if !self.arguments.shows(container) || !self.arguments.wants_labels() {
            return Ok(self.arguments.shows(container));
        }
        match changes.during(self.api.containers.definition(name)).await {
            Ok(text) => drop(self.labels.insert(name.clone(), Details::of(&text)?.labels)),
            // It has gone.
            Err(ApiError::Refused(_)) if changes.during(self.api.inspect(name)).await.is_err() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.labels.get(name).is_some_and(|labels| self.arguments.shows_labels(labels)))
    }

    fn line(&self, container: &Container, at_us: u64) -> Result<String, Error> {
        let event = Event { time: format::moment(at_us), container };
        match &self.arguments.format {
            _ if self.json => serde_json::to_string(&event).map_err(|error| Error::Output(error.into())),
            Some(template) => {
                let ours = serde_json::to_value(&event).map_err(|error| Error::Output(error.into()))?;
                template.render(&[&dockers(container, at_us), &ours]).map_err(Error::Refused)
            }
            None => Ok(text(container, at_us)),
        }
    }
}

/// By docker's names.
fn dockers(container: &Container, at_us: u64) -> Value {
    let Container { name, image, .. } = container;
    let action = format::container_state(container.state);
    json!({
        "Type": "container",
        "Action": action,
        "Status": action,
        "ID": name,
        "From": image,
        "Actor": { "ID": name, "Attributes": { "name": name, "image": image, "exitCode": container.exit_code } },
        "Time": at_us / 1_000_000,
        "TimeNano": at_us.saturating_mul(1_000),
    })
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
    fn a_line_is_as_the_template_says() {
        let container = container(ContainerState::Failed);
        let views = [
            dockers(&container, 7_000_000),
            serde_json::to_value(Event { time: format::moment(7_000_000), container: &container }).unwrap(),
        ];
        let rendered = |format: &str| format.parse::<Template>().unwrap().render(&[&views[0], &views[1]]).unwrap();
        assert_eq!(
            rendered("{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Time}} {{.exit_code}}"),
            "container failed job 7 3"
        );
        assert_eq!(rendered("{{.time}} {{.state}}"), "1970-01-01T00:00:07.000000Z failed");
        assert!(rendered("json").starts_with("{\"Action\":\"failed\""));
        let error = <Line as clap::Parser>::try_parse_from(["events", "-f", "type=image"]).unwrap_err().to_string();
        assert!(error.contains("type=container") && error.contains("berth images"), "{error}");
        assert!(line("events -f type=container").shows(&container));
    }

    #[tokio::test]
    async fn labels_are_asked_for_and_who_has_gone_keeps_them() {
        let (api, mut peer) = peer::pair().await;
        let arguments = line("events -f label=tier=db -f label=by");
        let begun = tokio::join!(Changes::begin(&api), peer.answer("Subscribe", &()));
        let mut changes = begun.0.unwrap();
        let job = container(ContainerState::Running);
        let mut printer = Printer { api: &api, arguments: &arguments, json: false, labels: BTreeMap::new() };
        let told = r#"{"definition":{"labels":{"tier":"db"}},"prepared":{"labels":{"by":"me"}}}"#;
        let (shown, ()) = tokio::join!(printer.shows(&mut changes, &job), peer.answer("Definition", &told));
        assert!(shown.unwrap());
        let gone = async {
            for method in ["Definition", "Inspect"] {
                let call = peer.call(method).await;
                peer.refuse(&call, "there is no container job").await;
            }
        };
        let (shown, ()) = tokio::join!(printer.shows(&mut changes, &job), gone);
        assert!(shown.unwrap(), "its last event");
        let told = r#"{"definition":{"labels":{"tier":"db"}}}"#;
        let (shown, ()) = tokio::join!(printer.shows(&mut changes, &job), peer.answer("Definition", &told));
        assert!(!shown.unwrap(), "one label of two");
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
