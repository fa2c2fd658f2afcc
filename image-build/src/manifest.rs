//! The root's tree before it is packed: what each path is, how large, with which mode, and where it comes from. Printed,
//! it is the image's manifest.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::digest::{self, Key};

/// Paths (without the leading slash) to what lies there, in order.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
struct Node {
    content: Content,
    mode: u32,
    origin: String,
}

#[derive(Debug)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    /// Adds a folder. The folders above must be there.
    ///
    /// # Errors
    /// If the path is taken or hangs in the air.
    pub fn folder(&mut self, path: &str, mode: u32, origin: &str) -> Result<()> {
        self.add(path, Content::Folder, mode, origin)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If the path is taken or hangs in the air.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32, origin: &str) -> Result<()> {
        self.add(path, Content::File(content.into()), mode, origin)
    }

    /// Adds a file with the content of another.
    ///
    /// # Errors
    /// If that cannot be read, or the path is taken or hangs in the air.
    pub fn copy(&mut self, path: &str, from: &Path, mode: u32, origin: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.file(path, content, mode, origin)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// If the path is taken or hangs in the air.
    pub fn link(&mut self, path: &str, target: &str, origin: &str) -> Result<()> {
        self.add(path, Content::Link(target.to_owned()), 0o777, origin)
    }

    fn add(&mut self, path: &str, content: Content, mode: u32, origin: &str) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !matches!(self.nodes.get(parent), Some(Node { content: Content::Folder, .. }))
        {
            bail!("{origin}: there is no folder {parent} for {path}");
        }
        let node = Node { content, mode, origin: origin.to_owned() };
        match self.nodes.insert(path.to_owned(), node) {
            None => Ok(()),
            Some(earlier) => bail!("{origin}: {path} is there already, from {}", earlier.origin),
        }
    }

    /// Adds to `key` all that a packed root holds of the tree. Origins are the manifest's only.
    #[must_use]
    pub fn add_to(&self, key: Key) -> Key {
        self.nodes.iter().fold(key, |key, (path, Node { content, mode, .. })| {
            let content = match content {
                Content::Folder => "folder".to_owned(),
                Content::File(content) => format!("file {}", digest::of_bytes(content)),
                Content::Link(target) => format!("link {target}"),
            };
            key.part(path, format!("{mode:o} {content}"))
        })
    }

    /// Writes the tree below an empty folder. Owners are the caller's; the packer sets them to root's.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_below(&self, root: &Path) -> Result<()> {
        for (path, node) in &self.nodes {
            let to = root.join(path);
            let written = match &node.content {
                Content::Folder => fs::create_dir(&to),
                Content::File(content) => fs::write(&to, content),
                Content::Link(target) => symlink(target, &to),
            };
            written.with_context(|| format!("write {}", to.display()))?;
        }
        // Modes last and deepest first: a folder nobody may write to could not be filled.
        for (path, node) in self.nodes.iter().rev() {
            if !matches!(node.content, Content::Link(_)) {
                let to = root.join(path);
                let mode = fs::Permissions::from_mode(node.mode);
                fs::set_permissions(&to, mode).with_context(|| format!("set the mode of {}", to.display()))?;
            }
        }
        Ok(())
    }
}

/// One line a path: kind and mode, size in bytes, path and link target, origin; and the sum.
impl fmt::Display for Tree {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut total = 0;
        for (path, Node { content, mode, origin }) in &self.nodes {
            let (kind, size, target) = match content {
                Content::Folder => ('d', 0, String::new()),
                Content::File(content) => ('-', content.len(), String::new()),
                Content::Link(target) => ('l', 0, format!(" -> {target}")),
            };
            total += size;
            writeln!(out, "{kind}{mode:04o} {size:>9} /{path}{target}  [{origin}]")?;
        }
        writeln!(out, "{} paths, {total} bytes before compression", self.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_origins_of_one_path_are_refused() {
        let mut tree = Tree::default();
        tree.file("a", "1", 0o644, "one").unwrap();
        let error = tree.file("a", "2", 0o644, "two").unwrap_err().to_string();
        assert_eq!(error, "two: a is there already, from one");
        assert!(tree.file("no/file", "", 0o644, "three").is_err());
    }

    #[test]
    fn what_is_written_is_what_is_listed() {
        let mut tree = Tree::default();
        tree.folder("etc", 0o555, "base").unwrap();
        tree.file("etc/name", "berth", 0o640, "base").unwrap();
        tree.link("bin", "usr/bin", "base").unwrap();
        let folder = tempfile::tempdir().unwrap();
        tree.write_below(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join("etc/name")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_link(folder.path().join("bin")).unwrap(), Path::new("usr/bin"));
        let listing = tree.to_string();
        assert!(listing.contains("-0640         5 /etc/name  [base]"), "{listing}");
    }

    #[test]
    fn a_tree_s_key_follows_from_what_is_packed() {
        let key = |name: &str, content: &str, mode: u32, target: &str, origin: &str| {
            let mut tree = Tree::default();
            tree.file(name, content, mode, origin).unwrap();
            tree.link("link", target, origin).unwrap();
            tree.add_to(Key::new("test")).finish()
        };
        let one = key("file", "content", 0o644, "file", "one");
        assert_eq!(one, key("file", "content", 0o644, "file", "two"));
        let others = [
            key("other", "content", 0o644, "file", "one"),
            // Of the same length, which is all that the listing knows.
            key("file", "CONTENT", 0o644, "file", "one"),
            key("file", "content", 0o755, "file", "one"),
            key("file", "content", 0o644, "other", "one"),
        ];
        assert!(others.iter().all(|other| *other != one));
    }
}
