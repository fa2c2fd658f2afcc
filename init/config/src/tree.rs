//! TOML as a tree in which every key and value knows where it stands, also after several sources were merged.

mod deserializer;
mod failure;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use self::failure::{Failure, Problem, alternatives};
pub(crate) use self::parse::parse;
use crate::diagnostic::quoted;
use crate::source::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub value: Value,
}

/// As TOML has them.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Dates and times: no key wants one.
    Date,
    List(Vec<Node>),
    Table(Table),
    /// Could not be read, and a diagnostic says so already.
    Broken,
    /// Stands for a value that is missing or wrong, so that those beside it can be read: fits where text or a list
    /// does.
    Hole,
    /// Was an element of a list, and wrong. It keeps its place so that the others keep their index.
    Removed,
}

/// Entries by key.
pub(crate) type Table = BTreeMap<String, Entry>;

/// A value with its key's place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Place,
    pub node: Node,
}

/// A step from a node to one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

/// How a node is reached from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Segment>);

impl Path {
    pub fn key(mut self, key: &str) -> Self {
        self.0.push(Segment::Key(key.to_owned()));
        self
    }

    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Segment::Index(index));
        self
    }

    /// Puts a step in front: paths of failures are made from their end.
    pub fn inside(&mut self, segment: Segment) {
        self.0.insert(0, segment);
    }

    /// Whether it leads to an element of a list.
    pub fn ends_in_list(&self) -> bool {
        matches!(self.0.last(), Some(Segment::Index(_)))
    }

    /// The last key on it.
    pub fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
    }
}

/// `containers.web.ports[1]`; keys are quoted where TOML wants it.
impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(formatter, "[{index}]")?,
                Segment::Key(key) => {
                    formatter.write_str(if position == 0 { "" } else { "." })?;
                    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                    if !key.is_empty() && key.len() <= 60 && key.bytes().all(bare) {
                        formatter.write_str(key)?;
                    } else {
                        formatter.write_str(&quoted(key))?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Node {
    /// A table without entries at the start of the first source.
    pub fn empty() -> Self {
        Self { place: Place::default(), value: Value::Table(Table::new()) }
    }

    /// Puts `upper` on top: tables are merged key by key, everything else is replaced.
    pub fn merge(&mut self, upper: Node) {
        match (&mut self.value, upper) {
            (Value::Table(lower), Node { value: Value::Table(upper), .. }) => {
                for (key, entry) in upper {
                    match lower.get_mut(&key) {
                        Some(present) => present.node.merge(entry.node),
                        None => {
                            lower.insert(key, entry);
                        }
                    }
                }
            }
            (_, upper) => *self = upper,
        }
    }

    /// The table's entries, none if it is no table.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// Where the value at the end of the path stands, or what is nearest to it, and what a person calls it. Indices
    /// count as in the values that were read: without removed elements.
    pub fn find(&self, path: &Path) -> (Place, Path) {
        let mut node = self;
        let mut real = path.clone();
        for segment in &mut real.0 {
            let next = match (&node.value, segment) {
                (Value::Table(table), Segment::Key(key)) => table.get(key).map(|entry| &entry.node),
                (Value::List(list), Segment::Index(index)) => {
                    let mut present = list.iter().enumerate().filter(|(_, node)| !node.is_removed());
                    present.nth(*index).map(|(position, node)| {
                        *index = position;
                        node
                    })
                }
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        (node.place, real)
    }

    /// Whether it is an element that was taken out of its list.
    pub fn is_removed(&self) -> bool {
        matches!(self.value, Value::Removed)
    }

    /// The node that the segments lead to.
    fn follow(&mut self, path: &[Segment]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, segment| match (&mut node.value, segment) {
            (Value::Table(table), Segment::Key(key)) => Some(&mut table.get_mut(key)?.node),
            (Value::List(list), Segment::Index(index)) => list.get_mut(*index),
            _ => None,
        })
    }

    /// Puts a hole into the table at the end of the path.
    pub fn fill(&mut self, path: &Path, key: &str) {
        if let Some(Self { place, value: Value::Table(table) }) = self.follow(&path.0) {
            table.insert(key.to_owned(), Entry { key: *place, node: Self { place: *place, value: Value::Hole } });
        }
    }

    /// Takes the value at the end of the path away; says from which table and with which key.
    pub fn remove(&mut self, path: &Path) -> Option<(Place, String)> {
        let (last, before) = path.0.split_last()?;
        let node = self.follow(before)?;
        match (&mut node.value, last) {
            (Value::Table(table), Segment::Key(key)) => table.remove(key).map(|_| (node.place, key.clone())),
            (Value::List(list), Segment::Index(index)) => {
                list.get_mut(*index)?.value = Value::Removed;
                Some((node.place, String::new()))
            }
            _ => None,
        }
    }
}
