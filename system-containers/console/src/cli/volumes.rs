//! `berth volume …`: volumes by command, with docker's words.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;

use berth_config::{Size, VolumeName};
use berth_control::images::{StoredVolume, VolumeEvent};
use clap::{Args, Subcommand};
use zbus::wire::OwnedFd as Pipe;

use super::api::Api;
use super::error::Error;
use super::filter::Label;
use super::template::Template;
use super::{answers, containers, create, format, table};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls(List),
    /// Everything about volumes, as JSON
    Inspect(Inspect),
    /// Make a volume, unless there is one of that name
    Create(Create),
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm(Remove),
    /// Remove all volumes that no container uses
    Prune(Prune),
}

/// Which.
#[derive(Debug, Args)]
pub struct List {
    /// Names alone
    #[arg(short, long)]
    quiet: bool,
    /// Only some: dangling=true, dangling=false, name=PART, label=KEY[=VALUE]
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// What to print of each, as a template: '{{.Name}}', '{{.name}} {{json .labels}}', 'table …' or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
}

/// Which.
#[derive(Debug, Args)]
pub struct Inspect {
    /// What to print of each, as a template: '{{.used_by}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<Template>,
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// A new one.
#[derive(Debug, Args)]
pub struct Create {
    /// Free text for tools
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The most that it may hold: size=SIZE
    #[arg(short, long = "opt", value_name = "OPTION", value_parser = size)]
    option: Option<Size>,
    /// Taken for docker's sake: there is only `local`
    #[arg(short, long, value_parser = ["local"], hide = true)]
    driver: Option<String>,
    /// Its name; one is made up if there is none
    #[arg(value_name = "NAME")]
    name: Option<VolumeName>,
}

/// Which.
#[derive(Debug, Args)]
pub struct Remove {
    /// One that is not there is no mistake
    #[arg(short, long)]
    force: bool,
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Which.
#[derive(Debug, Args)]
pub struct Prune {
    /// Also those with names; otherwise only those that images have asked for
    #[arg(short, long)]
    all: bool,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Taken for docker's sake: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

/// One of docker's filters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Dangling(bool),
    Name(String),
    Label(Label),
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once('=') {
            Some(("dangling", "true" | "1")) => Self::Dangling(true),
            Some(("dangling", "false" | "0")) => Self::Dangling(false),
            Some(("name", part)) => Self::Name(part.to_owned()),
            Some(("label", label)) => Self::Label(Label::new(label)),
            _ => {
                return Err(
                    "the filters here are dangling=true, dangling=false, name=PART and label=KEY[=VALUE]".into()
                );
            }
        })
    }
}

impl Filter {
    fn takes(&self, volume: &StoredVolume) -> bool {
        match self {
            Self::Dangling(wanted) => volume.used_by.is_empty() == *wanted,
            Self::Name(part) => volume.name.contains(part),
            Self::Label(label) => label.is_among(&volume.labels),
        }
    }
}

/// As the template says, a line each; or a table. Docker's names are those of `docker volume ls`.
fn by_template(template: &Template, volumes: &[StoredVolume]) -> Result<String, Error> {
    let views = |volume: &StoredVolume| {
        let ours = serde_json::to_value(volume).map_err(|error| Error::Output(error.into()))?;
        Ok([serde_json::json!({ "Driver": "local", "Scope": "local" }), ours])
    };
    let views = volumes.iter().map(views).collect::<Result<Vec<_>, Error>>()?;
    template.list(views, table::terminal_width()).map_err(Error::Refused)
}

/// Whether all filters take it; names are alternatives, as with docker's.
fn takes(filters: &[Filter], volume: &StoredVolume) -> bool {
    let is_name = |filter: &&Filter| matches!(filter, Filter::Name(_));
    let mut names = filters.iter().filter(is_name).peekable();
    (names.peek().is_none() || names.any(|filter| filter.takes(volume)))
        && filters.iter().filter(|filter| !is_name(filter)).all(|filter| filter.takes(volume))
}

fn size(text: &str) -> Result<Size, String> {
    let size = text.strip_prefix("size=").ok_or("the option here is size=SIZE, such as size=1G")?;
    size.parse().map_err(|error: berth_config::QuantityError| error.to_string())
}

/// Does it.
pub async fn run(api: &Api, command: Command, json: bool) -> Result<String, Error> {
    match command {
        Command::Ls(list) => {
            let mut volumes = Told::of(api.volumes.list().await?)?.volumes;
            volumes.retain(|volume| takes(&list.filter, volume));
            if let Some(template) = &list.format {
                return by_template(template, &volumes);
            }
            match (json, list.quiet) {
                (true, _) => super::json_text(&volumes),
                (false, true) => Ok(volumes.iter().map(|volume| format!("{}\n", volume.name)).collect()),
                (false, false) => Ok(volumes_table(&volumes, table::terminal_width())),
            }
        }
        Command::Inspect(Inspect { format, names }) => {
            let volumes = Told::of(api.volumes.list().await?)?.volumes;
            let missing: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| volumes.iter().all(|volume| volume.name != *name))
                .collect();
            for name in &missing {
                eprintln!("Error: there is no volume {name}");
            }
            let wanted: Vec<StoredVolume> =
                volumes.iter().filter(|volume| names.contains(&volume.name)).cloned().collect();
            let text = match &format {
                Some(template) => by_template(template, &wanted)?,
                None => super::json_text(&wanted)?,
            };
            containers::end_with(text, !missing.is_empty())
        }
        Command::Create(new) => {
            let name = new.name.map_or_else(create::made_up_name, |name| name.to_string());
            let pair = |text: String| {
                let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                (key.to_owned(), value.to_owned())
            };
            let labels = new.labels.into_iter().map(pair).collect();
            let made = api.volumes.create(&name, labels, new.option.map_or(0, Size::bytes)).await?;
            let made = Told::of(made)?.volumes;
            if json { super::json_text(&made) } else { Ok(format!("{name}\n")) }
        }
        Command::Rm(Remove { force, names }) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Told::of(api.volumes.remove(&names, force).await?)?.removed(json, "")
        }
        Command::Prune(Prune { all, dry_run, .. }) => {
            let would = if dry_run { "would be removed: " } else { "" };
            Told::of(api.volumes.prune(all, dry_run).await?)?.removed(json, would)
        }
    }
}

/// What the engine says.
#[derive(Debug, Default)]
struct Told {
    volumes: Vec<StoredVolume>,
    removed: Vec<String>,
    failed: Vec<String>,
}

impl Told {
    /// All of it; where nothing worked, that is an error.
    fn of(pipe: Pipe) -> Result<Self, Error> {
        Self::read(BufReader::new(File::from(OwnedFd::from(pipe))))
    }

    fn read(lines: impl BufRead) -> Result<Self, Error> {
        let mut told = Self::default();
        for event in answers::each(lines) {
            match event? {
                VolumeEvent::Volume(volume) => told.volumes.push(volume),
                VolumeEvent::Removed { name } => told.removed.push(name),
                VolumeEvent::Failed(reason) => told.failed.push(reason),
            }
        }
        if told.removed.is_empty() && told.volumes.is_empty() && !told.failed.is_empty() {
            return Err(Error::Refused(told.failed.join("\n")));
        }
        Ok(told)
    }

    /// The names of those that have gone, and on standard error why others have not.
    fn removed(self, json: bool, before: &str) -> Result<String, Error> {
        let text = if json {
            super::json_text(&self.removed)?
        } else {
            self.removed.iter().map(|name| format!("{before}{name}\n")).collect()
        };
        if self.failed.is_empty() {
            return Ok(text);
        }
        print!("{text}");
        Err(Error::Refused(self.failed.join("\n")))
    }
}

fn volumes_table(volumes: &[StoredVolume], width: Option<usize>) -> String {
    let row = |volume: &StoredVolume| {
        let limit = match (volume.used, volume.limit) {
            (Some(used), Some(limit)) => format!("{} of {}", format::bytes(used), format::bytes(limit)),
            _ => "-".to_owned(),
        };
        let users = if volume.used_by.is_empty() { "-".to_owned() } else { volume.used_by.join(", ") };
        vec![volume.name.clone(), limit, users]
    };
    table::render(&["VOLUME", "LIMIT", "USED BY"], &volumes.iter().map(row).collect::<Vec<_>>(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, used_by: &[&str]) -> StoredVolume {
        StoredVolume {
            name: name.to_owned(),
            used_by: used_by.iter().map(ToString::to_string).collect(),
            labels: [("tier".to_owned(), "db".to_owned())].into(),
            ..StoredVolume::default()
        }
    }

    fn lines(events: &[VolumeEvent]) -> String {
        let lines: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
        lines + "\n"
    }

    #[test]
    fn volumes_are_listed_with_who_uses_them() {
        let limited = StoredVolume { used: Some(1024), limit: Some(4096), ..volume("data", &["a", "b"]) };
        let events = [VolumeEvent::Volume(limited), VolumeEvent::Volume(volume("old", &[]))];
        let told = Told::read(lines(&events).as_bytes()).unwrap();
        assert_eq!(
            volumes_table(&told.volumes, None),
            "VOLUME  LIMIT               USED BY\n\
             data    1.0 KiB of 4.0 KiB  a, b\n\
             old     -                   -\n"
        );
    }

    #[test]
    fn a_template_has_dockers_names_and_ours() {
        let shown = by_template(&"{{.Name}} {{.Driver}} {{len .used_by}}".parse().unwrap(), &[volume("data", &["a"])]);
        assert_eq!(shown.unwrap(), "data local 1\n");
    }

    #[test]
    fn filters_are_dockers() {
        let takes = |filter: &str, volume: &StoredVolume| filter.parse::<Filter>().unwrap().takes(volume);
        let (used, spare) = (volume("data", &["a"]), volume("old", &[]));
        assert!(takes("dangling=true", &spare) && !takes("dangling=true", &used) && takes("dangling=0", &used));
        assert!(takes("name=at", &used) && !takes("name=at", &spare));
        assert!(takes("label=tier", &used) && takes("label=tier=db", &used) && !takes("label=tier=web", &used));
        let both = |line: &str| -> Vec<Filter> { line.split(' ').map(|filter| filter.parse().unwrap()).collect() };
        assert!(super::takes(&both("name=at name=ol"), &spare) && !super::takes(&both("name=at"), &spare));
        assert!(!super::takes(&both("name=ol dangling=false"), &spare) && super::takes(&[], &spare));
        assert!("driver=local".parse::<Filter>().is_err());
        assert_eq!(size("size=1G"), Ok(Size::from_bytes(1 << 30)));
        assert!(size("type=tmpfs").is_err());
    }

    #[test]
    fn a_removal_that_fails_in_part_is_an_error_that_says_why() {
        let failed = VolumeEvent::Failed("the volume data is in use by a".into());
        let told = Told::read(lines(std::slice::from_ref(&failed)).as_bytes());
        assert_eq!(told.unwrap_err().to_string(), "the volume data is in use by a");
        let told = Told::read(lines(&[VolumeEvent::Removed { name: "old".into() }, failed]).as_bytes()).unwrap();
        assert!(told.removed(false, "").is_err());
        let told = Told::read(lines(&[VolumeEvent::Removed { name: "old".into() }]).as_bytes()).unwrap();
        assert_eq!(told.removed(false, "").unwrap(), "old\n");
    }
}
