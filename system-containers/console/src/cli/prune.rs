//! `berth prune`: removes images that no container needs.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;

use berth_config::TimeSpan;
use berth_control::images::{PruneEvent, PrunedImage};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{answers, format};

/// Which images.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also those with names; otherwise only those whose name another image has now
    #[arg(short, long)]
    all: bool,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only those that were not used for so long
    #[arg(long, value_name = "TIME")]
    older_than: Option<TimeSpan>,
    /// The same as docker has it: until=TIME
    #[arg(long, value_name = "FILTER", value_parser = until, conflicts_with = "older_than")]
    filter: Option<TimeSpan>,
    /// Taken for docker's sake: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

fn until(text: &str) -> Result<TimeSpan, String> {
    let time = text.strip_prefix("until=").ok_or("the filter here is until=TIME, such as until=24h")?;
    time.parse().map_err(|error: berth_config::QuantityError| error.to_string())
}

/// Removes them, and says what that has freed.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let time = arguments.older_than.or(arguments.filter).map_or(0, |time| time.duration().as_secs());
    let pipe = api.images.prune(arguments.all, time, arguments.dry_run).await?;
    let removed = read(BufReader::new(File::from(OwnedFd::from(pipe))))?;
    if json { super::json_text(&removed) } else { Ok(text(&removed, arguments.dry_run)) }
}

fn read(lines: impl BufRead) -> Result<Vec<PrunedImage>, Error> {
    let mut removed = Vec::new();
    for event in answers::each(lines) {
        match event? {
            PruneEvent::Removed(image) => removed.push(image),
            PruneEvent::Failed(reason) => return Err(Error::Refused(reason)),
        }
    }
    Ok(removed)
}

fn text(removed: &[PrunedImage], dry_run: bool) -> String {
    let mut text = String::new();
    for image in removed {
        let name = if image.names.is_empty() { "an image without a name".to_owned() } else { image.names.join(", ") };
        text += &format!("{name} ({}): {}\n", image.digest, format::bytes(image.bytes));
    }
    let total = format::bytes(removed.iter().map(|image| image.bytes).sum());
    text + &if dry_run { format!("{total} would be freed\n") } else { format!("{total} freed\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_told_with_its_size() {
        let image = |names: &[&str], bytes| PrunedImage {
            names: names.iter().map(ToString::to_string).collect(),
            digest: "sha256:0".into(),
            bytes,
        };
        let images = [image(&["r.example/a:1", "r.example/a:2"], 2048), image(&[], 1024)];
        let events = images.iter().map(|image| PruneEvent::Removed(image.clone()));
        let lines: String = events.map(|event| serde_json::to_string(&event).unwrap() + "\n").collect();
        let removed = read(format!("{lines}\n").as_bytes()).unwrap();
        assert_eq!(
            text(&removed, false),
            "r.example/a:1, r.example/a:2 (sha256:0): 2.0 KiB\nan image without a name (sha256:0): 1.0 KiB\n3.0 KiB freed\n"
        );
        assert!(text(&[], true).ends_with("0 B would be freed\n"), "{}", text(&[], true));
        let failed = lines + &serde_json::to_string(&PruneEvent::Failed("no".into())).unwrap();
        assert_eq!(read(failed.as_bytes()).unwrap_err().to_string(), "no");
    }

    #[test]
    fn dockers_filter_is_understood() {
        assert_eq!(until("until=24h"), Ok("24h".parse().unwrap()));
        assert!(until("label=x").is_err() && until("until=x").is_err());
    }
}
