//! Loading: several texts in, one configuration or everything that is wrong out.
//!
//! ```text
//! sources ──parse──► trees ──merge──► one tree ──read──► Configuration ──check──► Loaded
//!            │                          │ ▲                              │
//!            └─────────── mistakes ─────┘ └── the mistake is taken out   └─ what contradicts what
//!                                             and the rest is read again
//! ```
//!
//! serde stops at the first mistake. So that a person learns of all of them at once, the value that is wrong is
//! removed from the tree and the rest is read again; what is only missing because it was removed is not reported.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::check;
use crate::configuration::Configuration;
use crate::diagnostic::{Diagnostic, Related, quoted};
use crate::locations::Locations;
use crate::source::{Place, Source};
use crate::suggestion::{elsewhere, nearest};
use crate::system_container::SystemContainer;
use crate::tree::{self, Failure, Node, Path, Problem, alternatives};

/// The most mistakes that are reported at once. Whoever has more has given the wrong file.
pub const DIAGNOSTIC_LIMIT: usize = 50;

/// How often the rest is read again. A mistake takes three rounds at most, for its value, for the hole in its place
/// and for the table around it; the number is there because PID 1 must not depend on that being right.
const ROUNDS: usize = 4 * DIAGNOSTIC_LIMIT;

/// A configuration without mistakes.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What all sources say together.
    pub configuration: Configuration,
    /// The names of the sources, in the order of merging.
    pub sources: Vec<String>,
    /// Where in them what decides about containers stands.
    pub locations: Locations,
}

/// Reads the sources, each on top of those before it: tables are merged key by key, every other value is replaced.
/// No source at all is the default configuration. The mistakes are in the order of the sources and their lines.
pub fn load(sources: &[Source]) -> Result<Loaded, Vec<Diagnostic>> {
    load_with(Report { sources, alone: false, mistakes: Vec::new() })
}

/// The same of a definition that is going to stand beside a configuration: the networks and containers that it names may be
/// there. [`crate::pod_obstacle`] is for those containers; networks are looked for when it starts.
pub fn load_definition(source: &Source) -> Result<Loaded, Vec<Diagnostic>> {
    load_with(Report { sources: std::slice::from_ref(source), alone: true, mistakes: Vec::new() })
}

fn load_with(mut report: Report) -> Result<Loaded, Vec<Diagnostic>> {
    let sources = report.sources;
    let mut root = report.parse()?;
    let declared: BTreeSet<String> = match root.entries().find(|(key, _)| *key == "containers") {
        Some((_, containers)) => containers.node.entries().map(|(name, _)| name.clone()).collect(),
        None => BTreeSet::new(),
    };
    if let Some(configuration) = report.read::<Configuration>(&mut root) {
        check::run(&configuration, &declared, &root, &mut report);
        if report.mistakes.is_empty() {
            let locations = Locations::of(&root, sources);
            let sources = sources.iter().map(|source| source.name.clone()).collect();
            return Ok(Loaded { configuration, sources, locations });
        }
    }
    Err(report.finish())
}

/// Reads the `container.toml` of a system container.
pub fn load_system_container(source: &Source) -> Result<SystemContainer, Vec<Diagnostic>> {
    let mut report = Report { sources: std::slice::from_ref(source), alone: false, mistakes: Vec::new() };
    let mut root = report.parse()?;
    match report.read(&mut root) {
        Some(container) if report.mistakes.is_empty() => Ok(container),
        _ => Err(report.finish()),
    }
}

/// A diagnostic and the place that it is sorted by.
pub(crate) struct Mistake {
    place: Place,
    diagnostic: Diagnostic,
}

impl Mistake {
    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic.help = Some(help.into());
        self
    }
}

/// The mistakes so far.
pub(crate) struct Report<'a> {
    sources: &'a [Source],
    /// Whether what is named may stand elsewhere.
    pub alone: bool,
    mistakes: Vec<Mistake>,
}

impl Report<'_> {
    /// Whether more would not help.
    pub fn is_full(&self) -> bool {
        self.mistakes.len() >= DIAGNOSTIC_LIMIT
    }

    /// Takes a mistake in.
    pub fn add(&mut self, mistake: Mistake) {
        if !self.is_full() {
            self.mistakes.push(mistake);
        }
    }

    /// Whether something below `path` was wrong in itself, and is therefore missing from the values.
    pub fn has_mistake_below(&self, path: &Path) -> bool {
        let below = format!("{path}.");
        self.mistakes.iter().any(|mistake| mistake.diagnostic.key.starts_with(&below))
    }

    /// A mistake that was found in the values that were read from `root`.
    pub fn about(&self, root: &Node, path: &Path, message: impl Into<String>) -> Mistake {
        let (place, path) = root.find(path);
        self.at(place, &path, message)
    }

    /// Points at a second value that has to do with the mistake.
    pub fn relate(&self, mut mistake: Mistake, root: &Node, path: &Path, message: &str) -> Mistake {
        let location = root.find(path).0.locate(self.sources);
        mistake.diagnostic.related.push(Related { message: message.to_owned(), location });
        mistake
    }

    fn at(&self, place: Place, path: &Path, message: impl Into<String>) -> Mistake {
        let key = path.to_string();
        let location = place.locate(self.sources);
        Mistake { place, diagnostic: Diagnostic { key, ..Diagnostic::new(message, location) } }
    }

    /// Hands the mistakes over in the order of the text.
    fn finish(&mut self) -> Vec<Diagnostic> {
        self.mistakes.sort_unstable_by_key(|mistake| mistake.place);
        self.mistakes.drain(..).map(|mistake| mistake.diagnostic).collect()
    }

    /// Parses and merges. Fails if a text is so broken that what the rest of it says is a guess.
    fn parse(&mut self) -> Result<Node, Vec<Diagnostic>> {
        let mut root = Node::empty();
        let mut sound = true;
        for (number, source) in self.sources.iter().enumerate() {
            let text = match source.decode() {
                Ok(text) => text,
                Err(diagnostic) => {
                    self.add(Mistake { place: Place { source: number, start: 0, end: 0 }, diagnostic: *diagnostic });
                    sound = false;
                    continue;
                }
            };
            let parsed = tree::parse(self.sources, number, text, DIAGNOSTIC_LIMIT);
            sound &= parsed.sound;
            for (place, diagnostic) in parsed.diagnostics {
                self.add(Mistake { place, diagnostic });
            }
            root.merge(parsed.root);
        }
        if sound && !self.is_full() { Ok(root) } else { Err(self.finish()) }
    }

    /// Reads the tree, and takes out of it what is wrong.
    fn read<T: for<'de> Deserialize<'de>>(&mut self, root: &mut Node) -> Option<T> {
        // Which keys of which tables were taken out, and where there is a hole instead.
        let mut removed: BTreeSet<(Place, String)> = BTreeSet::new();
        let mut filled: BTreeSet<(Place, String)> = BTreeSet::new();
        for round in 1..=ROUNDS {
            let failure = match T::deserialize(&*root) {
                Ok(value) => return Some(value),
                Err(failure) => failure,
            };
            let place = failure.place.unwrap_or_default();
            let missing = match &failure.problem {
                Problem::Missing { key } => Some((place, (*key).to_owned())),
                _ => None,
            };
            let known = matches!(failure.problem, Problem::Known)
                || missing.as_ref().is_some_and(|missing| removed.contains(missing));
            if !known || round == ROUNDS {
                self.add(self.explain(&failure, place));
            }
            if self.is_full() {
                return None;
            }
            match missing {
                Some(missing) if !filled.contains(&missing) => {
                    root.fill(&failure.path, &missing.1);
                    filled.insert(missing);
                }
                // The value, or the table with a key that no hole is good enough for.
                _ => {
                    removed.insert(root.remove(&failure.path)?);
                }
            }
        }
        None
    }

    fn explain(&self, failure: &Failure, place: Place) -> Mistake {
        let key = failure.path.last_key().unwrap_or_default();
        let entry = if failure.path.ends_in_list() { "an entry of " } else { "" };
        let wants = |expected: &str| format!("{entry}`{}` wants {expected}", key.escape_debug());
        let at = |message: &str| self.at(place, &failure.path, message);
        match &failure.problem {
            Problem::Known => at("it cannot be read"),
            Problem::UnknownKey { known } => {
                at("unknown key").help(match (elsewhere(key), nearest(key, known.iter().copied())) {
                    (Some(advice), _) => advice.to_owned(),
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => format!("the keys here are {}", known.join(", ")),
                })
            }
            Problem::UnknownWord { word, known } => {
                at(&format!("{} is not a choice", quoted(word))).help(match nearest(word, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => wants(&alternatives(known)),
                })
            }
            Problem::Missing { key } => at(&format!("the key `{key}` is missing")),
            Problem::Kind { found, expected } => at(&format!("it is {found}")).help(wants(expected)),
            Problem::Value { message, expected: Some(expected) } => at(message).help(wants(expected)),
            Problem::Value { message, expected: None } => at(message),
        }
    }
}

#[cfg(test)]
mod tests;
