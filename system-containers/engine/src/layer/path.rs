//! Names of entries, checked before anything is done with them.

use crate::limits;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It goes up.
    #[error("the name {name:?} contains \"..\": it could leave the image")]
    Parent {
        /// As written.
        name: String,
    },
    /// It is empty or has a NUL in it.
    #[error("the name {name:?} is empty or contains a NUL")]
    Malformed {
        /// As written.
        name: String,
    },
    /// It is longer than a file system takes.
    #[error("a name of {bytes} bytes is too long (it begins with {start:?})")]
    TooLong {
        /// The length of the path, or of the component that is too long.
        bytes: usize,
        /// Its first characters.
        start: String,
    },
    /// It is deeper than [`limits::PATH_DEPTH`].
    #[error("the name {start:?}… is more than {} directories deep", limits::PATH_DEPTH)]
    TooDeep {
        /// Its first characters.
        start: String,
    },
}

/// A path inside an image: relative, without `.`, `..` or empty components; empty for the image's root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// The image's root.
    pub const ROOT: Self = Self(Vec::new());

    /// Checks a name from an archive. A slash it begins with means the image's root, as with tar, containerd and umoci.
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        let text = |length| String::from_utf8_lossy(&name[..name.len().min(length)]).into_owned();
        if name.is_empty() || name.contains(&0) {
            return Err(PathError::Malformed { name: text(200) });
        }
        let mut path = Vec::with_capacity(name.len());
        let mut depth = 0;
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent { name: text(200) }),
                _ if component.len() > limits::NAME_BYTES => {
                    return Err(PathError::TooLong { bytes: component.len(), start: text(60) });
                }
                _ => {}
            }
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(component);
            depth += 1;
        }
        if path.len() > limits::PATH_BYTES {
            return Err(PathError::TooLong { bytes: path.len(), start: text(60) });
        }
        if depth > limits::PATH_DEPTH {
            return Err(PathError::TooDeep { start: text(60) });
        }
        Ok(Self(path))
    }

    /// Whether it is the image's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, `.` for the root: fit for a system call relative to the root's descriptor.
    pub fn as_bytes(&self) -> &[u8] {
        if self.0.is_empty() { b"." } else { &self.0 }
    }

    /// The directory it is in, and its name there; the root has an empty name.
    pub fn split(&self) -> (Self, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Self::ROOT, &self.0),
        }
    }

    /// Its name in the directory it is in; empty for the root.
    pub fn name(&self) -> &[u8] {
        let slash = self.0.iter().rposition(|byte| *byte == b'/');
        &self.0[slash.map_or(0, |slash| slash + 1)..]
    }

    /// Whether it is an entry of this directory.
    pub fn is_in(&self, directory: &Self) -> bool {
        let name = self.name();
        !name.is_empty() && self.0[..(self.0.len() - name.len()).saturating_sub(1)] == directory.0
    }

    /// This directory's entry of that name.
    pub fn join(&self, name: &[u8]) -> Self {
        if self.0.is_empty() { Self(name.to_vec()) } else { Self([&self.0, b"/".as_slice(), name].concat()) }
    }

    /// Its components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }
}

impl std::fmt::Display for EntryPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "/{}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_one_form() {
        let same = [("/a/b", "a/b"), ("//a", "a"), ("/./a", "a"), ("/", "."), ("./", "."), (".", "."), ("a", "a")];
        for (name, path) in same.into_iter().chain([("./a//b/", "a/b"), ("a/./b", "a/b"), ("..a/b..", "..a/b..")]) {
            assert_eq!(EntryPath::parse(name.as_bytes()).unwrap().as_bytes(), path.as_bytes());
        }
    }

    #[test]
    fn names_that_leave_are_refused() {
        for name in [&b".."[..], b"../a", b"a/../b", b"a/..", b"/..", b"/../a"] {
            assert!(matches!(EntryPath::parse(name), Err(PathError::Parent { .. })));
        }
        assert!(matches!(EntryPath::parse(b""), Err(PathError::Malformed { .. })));
        assert!(matches!(EntryPath::parse(b"a\0b"), Err(PathError::Malformed { .. })));
        assert!(matches!(EntryPath::parse(&[b'a'; 256]), Err(PathError::TooLong { .. })));
        assert!(matches!(EntryPath::parse("a/".repeat(257).as_bytes()), Err(PathError::TooDeep { .. })));
        assert!(matches!(
            EntryPath::parse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa/".repeat(200).as_bytes()),
            Err(PathError::TooLong { .. })
        ));
    }

    #[test]
    fn a_path_splits_into_directory_and_name() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        let directory = EntryPath::parse(b"a/b").unwrap();
        assert_eq!(path.split(), (directory.clone(), &b"c"[..]));
        assert_eq!((path.name(), EntryPath::ROOT.name()), (&b"c"[..], &b""[..]));
        assert!(path.is_in(&directory) && !directory.is_in(&directory) && !path.is_in(&EntryPath::ROOT));
        assert!(EntryPath::parse(b"a").unwrap().is_in(&EntryPath::ROOT) && !EntryPath::ROOT.is_in(&EntryPath::ROOT));
        assert_eq!(EntryPath::ROOT.split(), (EntryPath::ROOT, &b""[..]));
        assert_eq!(EntryPath::ROOT.join(b"x").join(b"y").as_bytes(), b"x/y");
    }
}
