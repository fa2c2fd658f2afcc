//! What the configuration is read from: files and other texts, with their names.

use crate::diagnostic::{Diagnostic, Location};

/// The most that one source may have, in bytes. A thousand containers fit into a tenth of it; what is larger is not
/// a configuration, and a diagnostic is better than the time and the memory that it would take.
pub const SIZE_LIMIT: usize = 1 << 20;

/// One TOML text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What a person knows it by: `berth.toml`, `config.d/10-web.toml`, `kernel command line`.
    pub name: String,
    /// As it was read; checked to be UTF-8 when it is loaded.
    pub text: Vec<u8>,
}

impl Source {
    /// A text with its name.
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// As text, or why it is none.
    pub(crate) fn decode(&self) -> Result<&str, Box<Diagnostic>> {
        if self.text.len() > SIZE_LIMIT {
            let message = format!("it has {} bytes, {SIZE_LIMIT} is the most", self.text.len());
            return Err(Box::new(Diagnostic::new(message, Location::new(&self.name, b"", 0..0))));
        }
        let error = match std::str::from_utf8(&self.text) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let start = error.valid_up_to();
        let end = start + error.error_len().unwrap_or(1);
        let diagnostic = Diagnostic::new("it is not text in UTF-8", Location::new(&self.name, &self.text, start..end));
        Err(Box::new(match self.text.get(..2) {
            // A byte order mark: Windows editors write UTF-16 if they are not told otherwise.
            Some([0xff, 0xfe] | [0xfe, 0xff]) => diagnostic.with_help("it looks like UTF-16: save it as UTF-8"),
            _ => diagnostic.with_help("save it as UTF-8"),
        }))
    }
}

/// Where something stands: bytes of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Index into the list of sources.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl Place {
    /// For a person.
    pub fn locate(self, sources: &[Source]) -> Location {
        match sources.get(self.source) {
            Some(source) => Location::new(&source.name, &source.text, self.start..self.end),
            // Only an empty list of sources has no first one, and nothing in it can be wrong.
            None => Location::new("", b"", 0..0),
        }
    }
}
