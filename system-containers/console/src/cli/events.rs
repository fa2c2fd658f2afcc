//! `berth events`: what happens to containers, as docker's has it: from now on, or since a moment, or until one.

mod happening;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use berth_control::dbus::ApiError;
use clap::Args;

use self::happening::Happening;
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
    /// Only those with this: container=, event= (a state, or removed), image=, label=KEY or KEY=VALUE, type=container; of several of one kind
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
    fn shows(&self, happening: &Happening) -> bool {
        let container = &happening.container;
        let fits = |key, found: &[&str]| super::filter::fits(&self.filters, &key, |value| found.contains(&value));
        (self.names.is_empty() || self.names.contains(&container.name))
            && fits(Key::Container, &[&container.name])
            && fits(Key::Event, &happening.words())
            && fits(Key::Image, &[&container.image])
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

/// Prints changes of states, as they happen, until it is interrupted or its time is up.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<(), Error> {
    let begun_us = format::now_us();
    let mut changes = Changes::begin(api).await?;
    let arguments = &changes.during(arguments.with_instances(api)).await?;
    let mut told = Told::default();
    let mut printer = Printer { api, arguments, json, labels: BTreeMap::new() };
    printer.learn_all(&mut changes).await?;
    if let Some(since_us) = arguments.looks_back(begun_us) {
        for change in changes.during(api.containers.changes_since(since_us)).await? {
            let removed = change.removed.unwrap_or_default();
            let happening = Happening { container: change.container.into(), removed };
            if arguments.until.is_none_or(|until| change.at_us <= until) {
                printer.print(&mut changes, &happening, change.at_us).await?;
            }
            if change.at_us >= begun_us {
                told.add(happening);
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
        let happening = match change {
            Change::Container(container) => Happening { container: *container, removed: false },
            Change::Removed(container) => Happening { container: *container, removed: true },
            Change::Missed(count) => {
                eprintln!(
                    "{count} changes are missing here: the output was not read in time; `berth ps --all` shows the states"
                );
                continue;
            }
        };
        if !told.knows(&happening) {
            printer.print(&mut changes, &happening, format::now_us()).await?;
        }
    }
}

/// What was remembered and comes as a signal too: it happened between the two questions.
#[derive(Debug, Default)]
struct Told(VecDeque<Happening>);

impl Told {
    fn add(&mut self, happening: Happening) {
        self.0.push_back(happening);
    }

    /// Whether a signal is of something that was told already. Signals come in the order of what is remembered.
    fn knows(&mut self, happening: &Happening) -> bool {
        let found = self.0.iter().position(|told| told == happening);
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
    async fn print(&mut self, changes: &mut Changes, happening: &Happening, at_us: u64) -> Result<(), Error> {
        if !self.shows(changes, happening).await? {
            return Ok(());
        }
        let mut output = io::stdout().lock();
        let line = self.line(happening, at_us)?;
        writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Error::Output)
    }

    async fn shows(&mut self, changes: &mut Changes, happening: &Happening) -> Result<bool, Error> {
        let name = &happening.container.name;
        if !self.arguments.shows(happening) || !self.arguments.wants_labels() {
            return Ok(self.arguments.shows(happening));
        }
        if happening.removed {
            let labels = self.labels.remove(name);
            return Ok(labels.is_some_and(|labels| self.arguments.shows_labels(&labels)));
        }
        self.learn(changes, name).await?;
        Ok(self.labels.get(name).is_some_and(|labels| self.arguments.shows_labels(labels)))
    }

    /// Asks for the labels of a container.
    async fn learn(&mut self, changes: &mut Changes, name: &str) -> Result<(), Error> {
        match changes.during(self.api.containers.definition(name)).await {
            Ok(text) => drop(self.labels.insert(name.to_owned(), Details::of(&text)?.labels)),
            // It has gone.
            Err(ApiError::Refused(_)) if changes.during(self.api.inspect(name)).await.is_err() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Asks for those of all containers, if labels are looked at: a removal may be the first that is heard of one.
    async fn learn_all(&mut self, changes: &mut Changes) -> Result<(), Error> {
        if !self.arguments.wants_labels() {
            return Ok(());
        }
        for container in changes.during(self.api.containers.list()).await? {
            self.learn(changes, &container.name).await?;
        }
        Ok(())
    }

    fn line(&self, happening: &Happening, at_us: u64) -> Result<String, Error> {
        let event = happening.event(at_us);
        match &self.arguments.format {
            _ if self.json => serde_json::to_string(&event).map_err(|error| Error::Output(error.into())),
            Some(template) => {
                let ours = serde_json::to_value(&event).map_err(|error| Error::Output(error.into()))?;
                template.render(&[&happening.in_dockers_words(at_us), &ours]).map_err(Error::Refused)
            }
            None => Ok(happening.text(at_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::peer;
    use super::*;
    use berth_control::message::{Container, ContainerState};
    use serde_json::json;

    fn happening(state: ContainerState) -> Happening {
        let (image, reason) = ("web:1".into(), "exited with code 3".into());
        Happening { container: Container { image, reason, ..peer::container("job", state) }, removed: false }
    }

    fn removal() -> Happening {
        Happening { removed: true, ..happening(ContainerState::Failed) }
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
    fn filters_of_one_kind_are_alternatives_and_those_of_several_are_not() {
        let failed = happening(ContainerState::Failed);
        for shown in ["events", "events job", "events -f event=failed -f event=stopped --filter container=job"] {
            assert!(line(shown).shows(&failed), "{shown}");
        }
        for hidden in ["events web", "events -f event=running", "events -f container=job -f image=web"] {
            assert!(!line(hidden).shows(&failed), "{hidden}");
        }
        for removed in ["events -f event=removed", "events -f event=destroy", "events job"] {
            assert!(line(removed).shows(&removal()), "{removed}");
        }
        assert!(!line("events -f event=failed").shows(&removal()) && !line("events -f event=destroy").shows(&failed));
        assert!(<Line as clap::Parser>::try_parse_from(["events", "-f", "colour=red"]).is_err());
    }

    #[test]
    fn a_line_is_as_the_template_says() {
        let failed = happening(ContainerState::Failed);
        let ours = serde_json::to_value(failed.event(7_000_000)).unwrap();
        let views = [failed.in_dockers_words(7_000_000), ours];
        let rendered = |format: &str| format.parse::<Template>().unwrap().render(&[&views[0], &views[1]]).unwrap();
        assert_eq!(
            rendered("{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Time}} {{.exit_code}}"),
            "container failed job 7 3"
        );
        assert_eq!(rendered("{{.time}} {{.state}}"), "1970-01-01T00:00:07.000000Z failed");
        assert!(rendered("json").starts_with("{\"Action\":\"failed\""));
        let error = <Line as clap::Parser>::try_parse_from(["events", "-f", "type=image"]).unwrap_err().to_string();
        assert!(error.contains("type=container") && error.contains("berth images"), "{error}");
        assert!(line("events -f type=container").shows(&failed));
        let removal = removal().in_dockers_words(7_000_000);
        assert_eq!((&removal["Action"], &removal["Status"]), (&json!("destroy"), &json!("destroy")));
    }

    #[tokio::test]
    async fn labels_are_asked_for_and_who_has_gone_keeps_them() {
        let (api, mut peer) = peer::pair().await;
        let arguments = line("events -f label=tier=db -f label=by");
        let begun = tokio::join!(Changes::begin(&api), peer.answer("Subscribe", &()));
        let mut changes = begun.0.unwrap();
        let job = happening(ContainerState::Running);
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
        let removal = removal();
        assert!(printer.shows(&mut changes, &removal).await.unwrap(), "and its removal");
        assert!(!printer.shows(&mut changes, &removal).await.unwrap(), "of which nobody knows the labels");
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
        let all = [ContainerState::Starting, ContainerState::Running, ContainerState::Failed].map(happening);
        all.iter().cloned().for_each(|happening| told.add(happening));
        // The first was before the signals began.
        assert!(told.knows(&all[1]) && told.knows(&all[2]));
        assert!(!told.knows(&all[1]), "it happened again");
    }
}
