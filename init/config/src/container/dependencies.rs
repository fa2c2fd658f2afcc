//! What a container waits for before it starts: a list of names, or a table of conditions as in Compose's long form.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::names::ContainerName;

const WANTED: &str = "a list such as [\"db\"], or a table such as { db = { condition = \"healthy\" } }";

/// How far the other container must have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// It runs, and is healthy if it has a health check. What a list of names means.
    #[default]
    Ready,
    /// It runs.
    #[serde(alias = "service_started")]
    Started,
    /// Its health check passes.
    #[serde(alias = "service_healthy")]
    Healthy,
    /// Its last run ended by itself, with code 0.
    #[serde(alias = "service_completed_successfully")]
    Completed,
}

/// `depends_on`, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Dependencies {
    /// Names only.
    List(Vec<ContainerName>),
    /// With conditions.
    Table(BTreeMap<ContainerName, Dependency>),
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// As of a list if absent.
    #[serde(default)]
    pub condition: DependencyCondition,
}

impl Default for Dependencies {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Dependencies {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(names) => names.is_empty(),
            Self::Table(table) => table.is_empty(),
        }
    }

    /// The names and what is wanted of each, a list in its order and a table by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ContainerName, DependencyCondition)> {
        let (names, table) = match self {
            Self::List(names) => (Some(names), None),
            Self::Table(table) => (None, Some(table)),
        };
        let listed = names.into_iter().flatten().map(|name| (name, DependencyCondition::Ready));
        listed.chain(table.into_iter().flatten().map(|(name, dependency)| (name, dependency.condition)))
    }

    /// The name at this place of [`Self::iter`].
    pub(crate) fn name(&self, index: usize) -> Option<&ContainerName> {
        match self {
            Self::List(names) => names.get(index),
            Self::Table(table) => table.keys().nth(index),
        }
    }
}

crate::text::described!(Dependencies, {
    "description": "Takes a list of names, or a table of names with what each must have come to.",
    "anyOf": [
        { "type": "array", "items": { "type": "string" } },
        { "type": "object", "additionalProperties": {
            "type": "object",
            "properties": { "condition": { "type": "string" } },
            "additionalProperties": false
        } }
    ]
});

impl<'de> Deserialize<'de> for Dependencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Dependencies;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(WANTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Dependencies, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Dependencies::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Dependencies, A::Error> {
        let table: BTreeMap<_, _> = Deserialize::deserialize(MapAccessDeserializer::new(table))?;
        // What is left out when it is written has one form only.
        Ok(if table.is_empty() { Dependencies::default() } else { Dependencies::Table(table) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Dependencies, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn conditions(text: &str) -> Vec<(String, DependencyCondition)> {
        let dependencies = read(text).expect("it is good");
        let again = read(&serde_json::to_string(&dependencies).expect("it can be written")).expect("it is good");
        assert_eq!(dependencies, again);
        dependencies.iter().map(|(name, condition)| (name.to_string(), condition)).collect()
    }

    #[test]
    fn a_list_wants_what_an_entry_without_a_condition_wants() {
        let wanted = [("db".to_owned(), DependencyCondition::Ready)];
        assert_eq!(conditions("[\"db\"]"), wanted);
        assert_eq!(conditions("{\"db\": {}}"), wanted);
    }

    #[test]
    fn composes_names_of_conditions_are_known() {
        use DependencyCondition::{Completed, Healthy, Started};
        for (ours, theirs, wanted) in [
            ("started", "service_started", Started),
            ("healthy", "service_healthy", Healthy),
            ("completed", "service_completed_successfully", Completed),
        ] {
            for name in [ours, theirs] {
                let read = conditions(&format!("{{\"db\": {{\"condition\": \"{name}\"}}}}"));
                assert_eq!(read, [("db".to_owned(), wanted)], "{name}");
            }
        }
        for text in ["\"db\"", "{\"db\": {\"condition\": \"service\"}}", "{\"db\": {\"restart\": true}}", "[\"-\"]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
