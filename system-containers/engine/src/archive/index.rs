//! Where everything lies in an archive.

use std::collections::BTreeMap;
use std::fs::File;

use super::ArchiveError;
use crate::limits;
use crate::section::Section;
use crate::tar::{Kind, Reader};

/// How many links one name may lead through: old versions of `docker save` link equal layers to one of them.
const LINKS: u32 = 8;

/// A file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its data begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

#[derive(Debug)]
enum Item {
    File(Place),
    Link(String),
}

/// The archive's files by name, without a leading `./`.
#[derive(Debug, Default)]
pub struct Index {
    items: BTreeMap<String, Item>,
}

impl Index {
    /// Reads all headers, passing over the data.
    pub fn read(file: &File) -> Result<Self, ArchiveError> {
        let length = file.metadata().map_err(ArchiveError::Read)?.len();
        let mut reader = Reader::new(Section::whole(file).map_err(ArchiveError::Read)?);
        let mut index = Self::default();
        let mut entries = 0;
        while let Some(entry) = reader.next_entry()? {
            entries += 1;
            if entries > limits::ARCHIVE_ENTRIES {
                return Err(ArchiveError::Entries);
            }
            // A name that is not text names nothing that a manifest could mean.
            let Ok(name) = String::from_utf8(entry.path) else { continue };
            let name = normalise(&name);
            let item = match entry.kind {
                Kind::File if entry.segments.is_some() => continue,
                Kind::File => {
                    if entry.offset.checked_add(entry.stored).is_none_or(|end| end > length) {
                        return Err(ArchiveError::Truncated { what: name });
                    }
                    Item::File(Place { offset: entry.offset, length: entry.stored })
                }
                Kind::Symlink | Kind::HardLink => {
                    let Ok(target) = String::from_utf8(entry.link) else { continue };
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Item::Link(if entry.kind == Kind::Symlink {
                        normalise(&format!("{directory}/{target}"))
                    } else {
                        normalise(&target)
                    })
                }
                _ => continue,
            };
            index.items.insert(name, item);
        }
        Ok(index)
    }

    /// A file, also by the name of a link to it.
    pub fn find(&self, name: &str) -> Option<Place> {
        let mut name = normalise(name);
        for _ in 0..LINKS {
            match self.items.get(&name)? {
                Item::File(place) => return Some(*place),
                Item::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// Takes `.` and `..` out of a name. It is a key and never a path of this machine.
pub fn normalise(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn names_have_one_form() {
        assert_eq!(normalise("./blobs//sha256/x"), "blobs/sha256/x");
        assert_eq!(normalise("layer2/../layer1/layer.tar"), "layer1/layer.tar");
        assert_eq!(normalise("../../x"), "x");
    }
}
