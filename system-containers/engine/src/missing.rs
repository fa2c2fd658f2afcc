//! Tells a person why an image is not there, and what to do.

use crate::reference::Reference;
use crate::store::{Outcome, Store};

/// How many archives or names one explanation lists.
const LISTED: usize = 5;

/// Why a pull did not bring it, if one was tried, then what there is instead.
pub fn explain(wanted: &Reference, store: &Store, failure: Option<&str>) -> String {
    let mut text = match failure {
        Some(failure) => format!("{wanted} cannot be pulled: {failure}"),
        None if store.resolve(wanted).is_some() => {
            return format!(
                "{wanted} was not verified under the policy for it: pull it by its name in a registry first"
            );
        }
        None => {
            format!("there is no image {wanted} in images/ of the user-data partition, and no registry is localhost")
        }
    };
    let names = store.names();
    let last = wanted.path().rsplit('/').next().unwrap_or_default();
    let similar: Vec<&str> = names
        .keys()
        .map(String::as_str)
        .filter(|name| **name != wanted.key())
        .filter(|name| name.parse::<Reference>().is_ok_and(|name| name.path().rsplit('/').next() == Some(last)))
        .take(LISTED)
        .collect();
    if !similar.is_empty() {
        text.push_str(&format!("; did you mean {}?", similar.join(" or ")));
        return text;
    }
    let found: Vec<(String, Outcome)> = store
        .archives()
        .into_iter()
        .filter(|(_, record)| record.present)
        .map(|(name, record)| (name, record.outcome))
        .collect();
    if let Some(why) = rejected(wanted, &found) {
        return format!("{text}; {why}");
    }
    if found.is_empty() {
        return text;
    }
    text.push_str("; the archives are: ");
    let more = found.len().saturating_sub(LISTED);
    let list: Vec<String> = found.into_iter().take(LISTED).map(|(name, outcome)| describe(&name, &outcome)).collect();
    text.push_str(&list.join("; "));
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// Why an archive's image of this name was not taken.
fn rejected(wanted: &Reference, found: &[(String, Outcome)]) -> Option<String> {
    let beginning = format!("{wanted}: ");
    found.iter().find_map(|(archive, outcome)| match outcome {
        Outcome::Images { rejected, .. } => {
            let reason = rejected.iter().find_map(|reason| reason.strip_prefix(&beginning))?;
            Some(format!("{archive} has it, but {reason}"))
        }
        Outcome::Rejected(_) => None,
    })
}

fn describe(archive: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Rejected(reason) => format!("{archive}, which is rejected because {reason}"),
        Outcome::Images { names, nameless, rejected } => {
            let mut parts: Vec<String> = names.iter().take(LISTED).map(|(name, _)| name.clone()).collect();
            parts.extend(nameless.iter().take(LISTED).map(|digest| format!("an image without a name ({digest})")));
            if !rejected.is_empty() {
                parts.push(format!("{} images that are rejected", rejected.len()));
            }
            match parts.is_empty() {
                true => format!("{archive} without images"),
                false => format!("{archive} with {}", parts.join(", ")),
            }
        }
    }
}
