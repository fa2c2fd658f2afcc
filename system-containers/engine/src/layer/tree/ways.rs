//! Where the path of a directory leads, through symbolic links of the layer and of those below.

use rustix::io::Errno;

use super::{Tree, failed, file_failed, is_opaque};
use crate::erofs::{self, DirectoryId, Kind, Node};
use crate::layer::{EntryPath, LayerError};
use crate::merged::Found;

/// How many symbolic links one parent may lead through.
const LINKS: u32 = 40;

/// Where a path leads.
pub struct Resolved {
    /// Without symbolic links.
    pub path: EntryPath,
    /// Whether this layer hides all that the layers below have there.
    pub hidden: bool,
}

/// A directory on a way.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// If this layer has it.
    id: Option<DirectoryId>,
    /// Whether this layer hides all that the layers below have there.
    pub(super) hidden: bool,
}

impl Step {
    pub(super) const ROOT: Self = Self { id: Some(erofs::Tree::ROOT), hidden: false };
}

/// How a way goes on.
enum Way {
    /// Into a directory, or what should be one.
    Into(Step),
    /// By a symbolic link to there.
    Link(Vec<u8>),
}

impl Tree<'_> {
    /// A directory of this layer; none if it is missing or something else.
    pub fn open(&self, directory: &EntryPath) -> Result<Option<DirectoryId>, LayerError> {
        let mut pending: Vec<Vec<u8>> = directory.components().map(<[u8]>::to_vec).collect();
        pending.reverse();
        let (mut at, mut links) = (erofs::Tree::ROOT, 0);
        while let Some(name) = pending.pop() {
            if name == b".." {
                at = self.names.parent(at);
                continue;
            }
            match self.names.find(at, &name) {
                Some(Node::Directory(id)) => at = id,
                Some(Node::Other(Kind::Symlink, place)) => {
                    let target = self.writer.target(place).map_err(file_failed("read", directory))?;
                    count(&mut links, directory)?;
                    if target.starts_with(b"/") {
                        at = erofs::Tree::ROOT;
                    }
                    pending.extend(components(&target));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Where the path of a directory leads: symbolic links of this layer, and where it says nothing those of the layers below,
    /// are followed. What is there may be missing, or something else.
    pub fn resolve(&self, directory: &EntryPath) -> Result<Resolved, LayerError> {
        let mut pending: Vec<Vec<u8>> = directory.components().map(<[u8]>::to_vec).collect();
        pending.reverse();
        let mut links = 0;
        // The directories down to where it is, the root among them.
        let (mut at, mut steps) = (EntryPath::ROOT, vec![Step::ROOT]);
        while let Some(name) = pending.pop() {
            if name == b".." {
                at = at.split().0;
                steps.truncate(steps.len().saturating_sub(1).max(1));
                continue;
            }
            let next = at.join(&name);
            let from = steps.last().copied().unwrap_or(Step::ROOT);
            match self.way(from, &name, &next)? {
                Way::Into(step) => {
                    steps.push(step);
                    at = next;
                }
                Way::Link(target) => {
                    count(&mut links, directory)?;
                    if target.starts_with(b"/") {
                        at = EntryPath::ROOT;
                        steps.truncate(1);
                    }
                    pending.extend(components(&target));
                }
            }
        }
        Ok(Resolved { path: at, hidden: steps.last().is_some_and(|step| step.hidden) })
    }

    /// What a name of a directory is for a path that leads through it.
    fn way(&self, from: Step, name: &[u8], path: &EntryPath) -> Result<Way, LayerError> {
        Ok(match from.id.and_then(|id| self.names.find(id, name)) {
            Some(Node::Other(Kind::Symlink, place)) => {
                Way::Link(self.writer.target(place).map_err(file_failed("read", path))?)
            }
            Some(Node::Directory(id)) => Way::Into(self.step(from, id)),
            Some(Node::Other(..)) => Way::Into(Step { id: None, hidden: true }),
            None if from.hidden => Way::Into(Step { id: None, hidden: true }),
            None => match self.lower()?.find_without_links(path)? {
                Some(Found::Other(item)) if item.kind() == Kind::Symlink => Way::Link(item.target()?),
                _ => Way::Into(Step { id: None, hidden: false }),
            },
        })
    }

    /// Into a directory of this layer.
    pub(super) fn step(&self, from: Step, id: DirectoryId) -> Step {
        Step { id: Some(id), hidden: from.hidden || is_opaque(self.names.attributes(id)) }
    }
}

fn count(links: &mut u32, path: &EntryPath) -> Result<(), LayerError> {
    *links += 1;
    if *links > LINKS { Err(failed("open", path)(Errno::LOOP)) } else { Ok(()) }
}

/// The components of a link's target, the last one first.
fn components(target: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec)
}
