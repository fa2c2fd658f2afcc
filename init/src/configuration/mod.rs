//! The configuration: read from the user data, checked, kept for the next boot.
//!
//! Runs in a task, since user data may be slow, broken or hostile. A configuration with a mistake is refused as a
//! whole; the last good one stays in force, from memory or from the state partition.

pub mod record;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use berth_config::{Configuration, Loaded, Locations, Source, Sysctls};
use berth_control::message::Creation;
use serde::{Deserialize, Serialize};

use crate::made::Unread;
use crate::storage::user_data::USER_DATA_PATH;
use crate::{clock, files, made, stopped};

/// Where the state partition keeps what the next boot is to know of the configuration and the containers.
pub const FOLDER: &str = "/var/lib/berth/configuration";

/// The last configuration that was accepted, as one file.
const LAST_GOOD: &str = "/var/lib/berth/configuration/last-good.toml";

/// The longest file that is read, in bytes: room for thousands of containers.
const MAXIMUM_FILE: u64 = 1 << 20;

/// What came of reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// To be put in force; `None` leaves what is.
    pub configuration: Option<Configuration>,
    /// The files that it came from.
    pub sources: Vec<String>,
    /// Where in them what decides about containers stands.
    #[serde(default)]
    pub locations: Locations,
    /// What is wrong and what to do; some of several lines.
    pub problems: Vec<String>,
    /// The containers that stay stopped: see [`crate::stopped`].
    pub stopped: BTreeSet<String>,
    /// The containers that were made by hand: see [`crate::made`].
    #[serde(default)]
    pub made: Vec<Creation>,
    /// What else stands where those are kept.
    #[serde(default)]
    pub made_unread: Vec<Unread>,
    /// Whether these three have been read. What was not is not to be replaced.
    #[serde(default)]
    pub kept_is_read: bool,
    /// What was read, as TOML, if it could not be kept for the next boot, which finds an older one in its place then.
    #[serde(default)]
    pub not_kept: Option<String>,
    /// In a few words, for the log.
    pub outcome: String,
    /// When reading began, in microseconds of [`crate::clock`].
    pub start_us: u64,
}

impl Report {
    /// The same, with another configuration in force that has none.
    pub fn without_problems(self) -> Self {
        Self { problems: Vec::new(), ..self }
    }

    /// Nothing could be read.
    pub fn failed(problem: String) -> Self {
        Self {
            outcome: "failed".to_owned(),
            problems: vec![problem],
            start_us: clock::microseconds(),
            ..Self::default()
        }
    }
}

/// Reads what there is. `none` is the kernel command line's way out of a configuration that does harm.
pub fn read(none: bool) -> Report {
    let mut report = read_user_data(none);
    if !none {
        record::use_applied(&Path::new(FOLDER).join(record::NAME), &mut report);
    }
    report
}

fn read_user_data(none: bool) -> Report {
    let start_us = clock::microseconds();
    let mut report = Report { start_us, ..Report::default() };
    match stopped::read(&Path::new(FOLDER).join(stopped::NAME)) {
        Ok(names) => report.stopped = names,
        Err(problem) => report.problems.push(problem),
    }
    match made::read(&Path::new(FOLDER).join(made::NAME)) {
        Ok(made) => (report.made, report.made_unread) = (made.creations, made.unread),
        Err(problem) => report.problems.push(problem),
    }
    report.kept_is_read = true;
    if none {
        report.outcome = "none, as the kernel command line says".to_owned();
        return report;
    }
    let files = user_files(Path::new(USER_DATA_PATH));
    if files.is_empty() {
        use_last_good(&mut report);
        return report;
    }
    match read_files(&files).and_then(parse) {
        Ok(Loaded { configuration, locations, .. }) => {
            report.locations = locations;
            report.sources = files.iter().map(|file| name_of(file)).collect();
            report.outcome = report.sources.join(", ");
            if let Err(problem) = keep(&configuration) {
                report.problems.push(problem);
                report.not_kept = configuration.to_toml().ok();
            }
            report.configuration = Some(configuration);
        }
        Err(problems) => {
            use_last_good(&mut report);
            report.outcome = format!("has mistakes; {}", report.outcome);
            report.problems.splice(0..0, problems);
        }
    }
    report
}

/// berth.toml, then config.d/*.toml by name.
fn user_files(folder: &Path) -> Vec<PathBuf> {
    let main = folder.join("berth.toml");
    let mut more: Vec<PathBuf> = fs::read_dir(folder.join("config.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    more.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")));
    more.sort();
    main.exists().then_some(main).into_iter().chain(more).collect()
}

/// The name in messages: relative to the user data, as the person who wrote it knows it.
fn name_of(path: &Path) -> String {
    path.strip_prefix(USER_DATA_PATH).unwrap_or(path).display().to_string()
}

fn read_files(files: &[PathBuf]) -> Result<Vec<Source>, Vec<String>> {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        let name = name_of(path);
        match read_file(path) {
            Ok(bytes) => sources.push(Source::new(name, bytes)),
            Err(reason) => problems.push(format!("{name}: {reason}")),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("open: {error}"))?;
    file.take(MAXIMUM_FILE + 1).read_to_end(&mut bytes).map_err(|error| format!("read: {error}"))?;
    if bytes.len() as u64 > MAXIMUM_FILE {
        return Err(format!("is longer than {} KiB", MAXIMUM_FILE >> 10));
    }
    Ok(bytes)
}

pub(crate) fn parse(sources: Vec<Source>) -> Result<Loaded, Vec<String>> {
    berth_config::load(&sources).map_err(|diagnostics| {
        diagnostics.iter().map(|diagnostic| diagnostic.render(berth_config::Style::Plain)).collect()
    })
}

/// Puts the last good configuration in force, if there is one.
fn use_last_good(report: &mut Report) {
    let path = Path::new(LAST_GOOD);
    if !path.exists() {
        report.outcome = "there is none; put a berth.toml on a partition labelled BERTH-DATA".to_owned();
        return;
    }
    let source = read_file(path).map_err(|reason| vec![format!("{LAST_GOOD}: {reason}")]);
    match source.and_then(|bytes| parse(vec![Source::new(LAST_GOOD.to_owned(), bytes)])) {
        Ok(Loaded { configuration, locations, .. }) => {
            report.locations = locations;
            report.outcome = "the last good one is in force".to_owned();
            report
                .problems
                .push("the configuration in force is the last good one, kept on the state partition".to_owned());
            report.sources = vec![LAST_GOOD.to_owned()];
            report.configuration = Some(configuration);
        }
        Err(problems) => {
            report.outcome = "the last good one cannot be read".to_owned();
            report.problems.extend(problems);
        }
    }
}

/// Keeps an accepted configuration: aside, synced, renamed. One that is kept already is not written again.
fn keep(configuration: &Configuration) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("keep the configuration in {LAST_GOOD}: {error}");
    let text = configuration.to_toml().map_err(|error| fail(&error))?;
    if fs::read(LAST_GOOD).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    files::replace(Path::new(LAST_GOOD), text.as_bytes()).map_err(|error| fail(&error))
}

/// Files of kernel parameters, and what the kernel has said in them.
pub type KernelParameters = Vec<(PathBuf, String)>;

/// Sets the machine's kernel parameters that differ; what they were before is the result. If one cannot be set, those
/// before it are as they were. `path` is [`Sysctls::path`].
pub fn set_kernel_parameters(
    old: &Sysctls,
    new: &Sysctls,
    path: impl Fn(&str) -> PathBuf,
) -> Result<KernelParameters, String> {
    let before: Vec<(&str, &str)> = old.iter().collect();
    let mut done = KernelParameters::new();
    for (name, value) in new.iter().filter(|setting| !before.contains(setting)) {
        let path = path(name);
        let current = fs::read_to_string(&path);
        if let Err(reason) = set_kernel_parameter(&path, name, value) {
            put_kernel_parameters_back(&done);
            return Err(reason);
        }
        // One that cannot be read has nothing to go back to.
        done.extend(current.ok().map(|current| (path, current)));
    }
    Ok(done)
}

/// Sets the kernel's parameters to what they were, the last one first.
pub fn put_kernel_parameters_back(before: &KernelParameters) {
    for (path, value) in before.iter().rev() {
        if let Err(error) = fs::write(path, value) {
            log::warn!("set {} back to {}: {error}", path.display(), value.trim_end());
        }
    }
}

/// Sets one of the machine's kernel parameters, in its file.
pub fn set_kernel_parameter(path: &Path, name: &str, value: &str) -> Result<(), String> {
    let failed = |error| format!("set {name} to {value}: {error}; check its name and value");
    fs::write(path, value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_go_back_to_what_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let read = |name| fs::read_to_string(path(name)).unwrap();
        for (name, value) in [("vm.a", "1\n"), ("vm.b", "2\n")] {
            fs::write(path(name), value).unwrap();
        }
        let sysctls =
            |text: &str| parse(vec![Source::new("test", format!("[sysctls]\n{text}"))]).unwrap().configuration.sysctls;
        let (old, new) = (sysctls("'vm.a' = 1\n"), sysctls("'vm.a' = 1\n'vm.b' = 5\n"));
        let before = set_kernel_parameters(&old, &new, path).unwrap();
        assert_eq!((read("vm.a"), read("vm.b")), ("1\n".to_owned(), "5".to_owned()));
        assert_eq!(before, [(path("vm.b"), "2\n".to_owned())]);
        put_kernel_parameters_back(&before);
        assert_eq!(read("vm.b"), "2\n");
        fs::create_dir(path("vm.c")).unwrap();
        let refused = set_kernel_parameters(&old, &sysctls("'vm.b' = 5\n'vm.c' = 1\n"), path).unwrap_err();
        assert!(refused.contains("set vm.c to 1"), "{refused}");
        assert_eq!(read("vm.b"), "2\n", "all of it or nothing");
    }
}
