//! Images as people call them: by a name, or by a part of a digest.

use super::{ImageRecord, Store};
use crate::digest::Digest;
use crate::reference::{Reference, ReferenceError};

/// The fewest digits that are taken for the beginning of a digest.
const DIGITS: usize = 4;

/// An image that was asked for.
#[derive(Debug)]
pub struct Found {
    /// The name it was called by; none if it was a digest.
    pub name: Option<Reference>,
    /// The image.
    pub digest: Digest,
    /// What is stored of it.
    pub record: ImageRecord,
}

/// Why an image is not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A name is none.
    #[error(transparent)]
    Reference(ReferenceError),
    /// There is none.
    #[error("there is no image {image} here: `berth images` lists them")]
    Missing {
        /// As asked for.
        image: String,
    },
    /// Digests of several images begin so.
    #[error("the digests of {count} images begin with {digits}: give more digits")]
    Several {
        /// As asked for.
        digits: String,
        /// How many.
        count: usize,
    },
}

impl Store {
    /// The image of a name.
    pub fn find_named(&self, name: &Reference) -> Result<Found, FindError> {
        let found = self.resolve(name).map(|(digest, record)| Found { name: Some(name.clone()), digest, record });
        found.ok_or_else(|| FindError::Missing { image: name.to_string() })
    }

    /// The image of a name; if no image has that name, the one whose digest, or whose configuration's (docker's image ID),
    /// begins with these digits, with or without `sha256:`.
    pub fn find(&self, text: &str) -> Result<Found, FindError> {
        let named = match text.parse() {
            Ok(name) => self.find_named(&name),
            Err(error) => Err(FindError::Reference(error)),
        };
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_digest = digits.len() >= DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if named.is_ok() || !is_digest {
            return named;
        }
        let catalogue = self.catalogue();
        let mut begin = catalogue.images.iter().filter(|(digest, image)| {
            [**digest, image.config_digest].into_iter().any(|digest| digest.hex().starts_with(digits))
        });
        match (begin.next(), begin.count()) {
            (None, _) => Err(FindError::Missing { image: text.to_owned() }),
            (Some((digest, record)), 0) => Ok(Found { name: None, digest: *digest, record: record.clone() }),
            (Some(_), more) => Err(FindError::Several { digits: digits.to_owned(), count: more + 1 }),
        }
    }
}
