//! From TOML text to the tree.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{Entry, Node, Table, Value};
use crate::diagnostic::{Diagnostic, quoted};
use crate::source::{Place, Source};

/// What became of a text.
pub(crate) struct Parsed {
    /// As much as could be read.
    pub root: Node,
    /// What could not.
    pub diagnostics: Vec<(Place, Diagnostic)>,
    /// Whether the mistakes leave the rest as it was meant: each is within one value. Otherwise what the tree says
    /// is a guess, and nothing should be concluded from it.
    pub sound: bool,
}

/// Reads the source with this number, up to `limit` mistakes.
pub(crate) fn parse(sources: &[Source], number: usize, text: &str, limit: usize) -> Parsed {
    let (table, errors) = DeTable::parse_recoverable(text);
    let place = |span: Range<usize>| Place { source: number, start: span.start, end: span.end };
    let mut reader = Reader { number, broken: Vec::new(), overflows: Vec::new(), leaves: Vec::new() };
    let mut parsed = Parsed { root: Node::empty(), diagnostics: Vec::new(), sound: true };

    // A first pass over the tree only to learn where its leaves are.
    reader.table(table.get_ref());
    let leaves = std::mem::take(&mut reader.leaves);
    reader.overflows.clear();
    for error in errors.iter().take(limit) {
        let span = error.span().unwrap_or(0..0);
        let leaf = enclosing(&leaves, &span);
        let duplicate = error.message() == "duplicate key";
        parsed.sound &= duplicate || leaf.is_some();
        let shown = leaf.clone().filter(|_| !duplicate).unwrap_or_else(|| span.clone());
        let location = place(shown.clone()).locate(sources);
        let mut diagnostic = Diagnostic::new(plain_message(error.message()), location);
        if duplicate {
            diagnostic.message = format!("the key {} is there twice", quoted(text.get(span).unwrap_or("")));
        } else if let Some(leaf) = leaf {
            let raw = text.get(leaf.clone()).unwrap_or("").trim();
            if !raw.is_empty() && !raw.starts_with(['"', '\'', '[', '{']) {
                diagnostic.message = format!("{} is not a value", quoted(raw));
                diagnostic = diagnostic.with_help(format!("text stands in quotation marks: {}", quoted(raw)));
            }
            reader.broken.push(leaf);
        }
        parsed.diagnostics.push((place(shown), diagnostic));
    }
    reader.broken.sort_unstable_by_key(|span| span.start);
    parsed.root = Node { place: place(0..0), value: Value::Table(reader.table(table.get_ref())) };
    for span in reader.overflows.drain(..).take(limit) {
        let diagnostic = Diagnostic::new("the number is too large", place(span.clone()).locate(sources));
        parsed.diagnostics.push((place(span), diagnostic.with_help("a number has 64 bits at most")));
    }
    parsed
}

/// The parser's message without the list of what its grammar would have taken next, which helps nobody.
fn plain_message(message: &str) -> &str {
    let message = message.split(", expected").next().unwrap_or(message);
    match message {
        "cannot recurse further; max recursion depth met" | "recursion limit" => "tables and lists are nested too deep",
        _ => message,
    }
}

/// The leaf that the span is in. `leaves` are in the order of the tree, not of the text.
fn enclosing(leaves: &[Range<usize>], span: &Range<usize>) -> Option<Range<usize>> {
    if span.is_empty() {
        return None;
    }
    leaves.iter().find(|leaf| leaf.start <= span.start && span.end <= leaf.end).cloned()
}

struct Reader {
    number: usize,
    /// Values that are not to be relied on, by their start.
    broken: Vec<Range<usize>>,
    /// Integers beyond 64 bits.
    overflows: Vec<Range<usize>>,
    /// Every value that is neither a list nor a table.
    leaves: Vec<Range<usize>>,
}

impl Reader {
    fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.number, start: span.start, end: span.end }
    }

    fn table(&mut self, table: &DeTable) -> Table {
        let mut entries = Table::new();
        for (key, value) in table {
            let node = self.node(value.get_ref(), value.span());
            entries.insert(key.get_ref().to_string(), Entry { key: self.place(key.span()), node });
        }
        entries
    }

    fn node(&mut self, value: &DeValue, span: Range<usize>) -> Node {
        let place = self.place(span.clone());
        let value = match value {
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Array(list) => {
                Value::List(list.iter().map(|element| self.node(element.get_ref(), element.span())).collect())
            }
            leaf => self.leaf(leaf, span),
        };
        Node { place, value }
    }

    fn leaf(&mut self, value: &DeValue, span: Range<usize>) -> Value {
        self.leaves.push(span.clone());
        if self.broken.binary_search_by_key(&span.start, |broken| broken.start).is_ok() {
            return Value::Broken;
        }
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Float(float) => float.as_str().parse().map_or(Value::Broken, Value::Float),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    self.overflows.push(span);
                    Value::Broken
                }
            },
            // Not leaves; the caller has taken them.
            DeValue::Array(_) | DeValue::Table(_) => Value::Broken,
        }
    }
}
