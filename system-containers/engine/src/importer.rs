//! The thread that imports archives, so that the engine answers PID 1 meanwhile.
//!
//! ```text
//!   Look ──► compare with the catalogue ──► Event::Looked ──► import what is new, Event::Imported each ──► Event::Idle
//!   Tidy ──► commit ──► forget images ──► remove leftovers
//! ```
//!
//! New archives are imported in reverse name order: the last one that has a name counts, so a container that is
//! prepared as soon as its image is there has the right one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use berth_control::images::{PruneEvent, PrunedImage};

use crate::answers;
use crate::archive;
use crate::import::{self, describe};
use crate::store::{Choice, Identity, Removed, Store, StoreError};

/// What the importer tells the engine's loop.
#[derive(Debug)]
pub enum Event {
    /// It knows which archives are there. The archives that are known from before are usable now.
    Looked,
    /// One archive more has been read.
    Imported,
    /// All of them.
    Idle,
}

/// What the engine's loop tells the importer.
#[derive(Debug)]
pub enum Task {
    /// Look for archives and import what is new.
    Look,
    /// Make what was imported last, and remove what is not needed. For a time when no container waits.
    Tidy,
    /// Remove images for a client, who reads of it from this pipe.
    Prune {
        /// Which.
        choice: Choice,
        /// Whether it only wants to know.
        dry_run: bool,
        /// Where [`PruneEvent`]s go.
        pipe: OwnedFd,
    },
}

/// Works until the sender of tasks is gone. `report` is called for every event.
pub fn run(store: &Store, archives: &Path, tasks: &Receiver<Task>, report: impl Fn(Event)) {
    let mut changed = false;
    for task in tasks {
        match task {
            Task::Look => changed |= look(store, archives, &report),
            Task::Tidy => match tidy(store, changed) {
                Ok(()) => changed = false,
                Err(error) => eprintln!("engine: {}", describe(&error)),
            },
            Task::Prune { choice, dry_run, pipe } => answers::write(pipe, &prune(store, choice, dry_run)),
        }
    }
}

/// True if the catalogue has changed.
fn look(store: &Store, archives: &Path, report: &impl Fn(Event)) -> bool {
    let found = find(archives);
    let known = store.present_archives(&found);
    for (name, record) in store.archives() {
        for problem in record.problems().iter().filter(|_| record.present) {
            eprintln!("engine: {name}: {problem}");
        }
    }
    report(Event::Looked);
    let mut changed = false;
    for (name, identity) in found.into_iter().rev().filter(|(name, _)| !known.contains(name)) {
        changed = true;
        import_one(store, &archives.join(&name), &name, identity);
        report(Event::Imported);
    }
    for (name, archives) in store.duplicates() {
        let last = archives.last().map_or("", String::as_str);
        eprintln!("engine: {name} is in {} with different contents; that of {last} counts", archives.join(", "));
    }
    report(Event::Idle);
    changed
}

fn import_one(store: &Store, path: &Path, name: &str, identity: Identity) {
    let started = std::time::Instant::now();
    let report = import::archive(store, path, name, identity);
    for problem in &report.problems {
        eprintln!("engine: {problem}");
    }
    if report.problems.is_empty() {
        let (layers, time) = (report.unpacked, started.elapsed().as_millis());
        eprintln!("engine: {name}: imported, {layers} layers unpacked in {time} ms");
    }
    store.record_archive(name, report.record);
}

fn tidy(store: &Store, changed: bool) -> Result<(), StoreError> {
    let forgotten = store.settle(changed)?;
    if forgotten > 0 {
        eprintln!("engine: {forgotten} images that nothing needs any more were removed");
    }
    Ok(())
}

fn prune(store: &Store, choice: Choice, dry_run: bool) -> Vec<PruneEvent> {
    let removed = if dry_run { Ok(store.prunable(choice)) } else { store.prune(choice) };
    let told = |Removed { digest, names, bytes }| {
        PruneEvent::Removed(PrunedImage { names, digest: digest.to_string(), bytes })
    };
    match removed {
        Ok(removed) => removed.into_iter().map(told).collect(),
        Err(error) => vec![PruneEvent::Failed(describe(&error))],
    }
}

/// The archives of a directory with their identities; what cannot be read is left out with a word about it.
fn find(directory: &Path) -> BTreeMap<String, Identity> {
    let mut found = BTreeMap::new();
    let files = match files(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
        Err(error) => {
            eprintln!("engine: list {directory:?}: {error}");
            return found;
        }
    };
    for path in files {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        match archive::identity(&path) {
            Ok(identity) => drop(found.insert(name.to_owned(), identity)),
            Err(error) => eprintln!("engine: read {path:?}: {error}"),
        }
    }
    found
}

/// Regular files and layouts that are not hidden: desktop systems leave `._x.tar` and the like on sticks.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_layout = kind.is_dir()
            && archive::is_folder(&path).unwrap_or_else(|error| {
                eprintln!("engine: look into {path:?}: {error}");
                false
            });
        if kind.is_dir() && !is_layout {
            eprintln!(
                "engine: {path:?} is a folder without an index.json: it is no image layout, and its files are not looked at"
            );
        } else if kind.is_dir() || (kind.is_file() && entry.metadata()?.len() > 0) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Starts the thread. Events are passed to `report`.
pub fn start(
    store: Arc<Store>,
    archives: PathBuf,
    report: impl Fn(Event) + Send + 'static,
) -> io::Result<Sender<Task>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let work = move || run(&store, &archives, &receiver, report);
    std::thread::Builder::new().name("importer".to_owned()).spawn(work)?;
    Ok(sender)
}
