//! What clients have done with images beside pulling them: each is work for a thread of its own, and ends in a list of texts
//! or a reason.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::fd::{AsFd as _, OwnedFd};

use berth_control::images::Query;

use crate::archive::{Archive, ArchiveError};
use crate::attended::Attended;
use crate::export::{ExportError, archive};
use crate::import::{self, ImportError};
use crate::reference::{Reference, ReferenceError};
use crate::store::{FindError, Found, RemoveError, Store, StoreError};

/// How much is written to an archive at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Something to do.
#[derive(Debug)]
pub enum Command {
    /// Write an archive.
    Save(Vec<String>, File),
    /// Read one of this name.
    Import(String, OwnedFd),
    /// Give the first image a name.
    Tag(String, Reference),
    /// Take a name away, or by its digest the only one of an image; also from who uses the image.
    Remove(String, bool),
    /// Tell everything about an image.
    Inspect(String),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A descriptor did not come.
    #[error("the query comes without a file")]
    File,
    /// What is no command.
    #[error("this is asked for in another way")]
    Other,
    /// A name with a digest means one image for ever.
    #[error("{name} has a digest: another name of an image has none")]
    Pinned {
        /// The name.
        name: String,
    },
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// An archive is of no use.
    #[error("{}", problems.join("; "))]
    Rejected {
        /// Why, a text for each image.
        problems: Vec<String>,
    },
    /// An image does not go out.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An archive does not come in.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A name stays.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of a command.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For the client.
    pub texts: Vec<String>,
    /// What was not done, a text each.
    pub problems: Vec<String>,
    /// Names that mean an image since.
    pub named: Vec<Reference>,
}

impl Command {
    /// Of a query, with the descriptor that came beside the pipe.
    pub fn of(query: Query, file: Option<OwnedFd>) -> Result<Self, CommandError> {
        Ok(match query {
            Query::Save { images } => Self::Save(images, file.ok_or(CommandError::File)?.into()),
            Query::Import { name } => Self::Import(name, file.ok_or(CommandError::File)?),
            Query::Tag { source, target } => {
                let target: Reference = target.parse()?;
                if target.digest().is_some() {
                    return Err(CommandError::Pinned { name: target.to_string() });
                }
                Self::Tag(source, target)
            }
            Query::Remove { image, force } => Self::Remove(image, force),
            Query::Inspect { image } => Self::Inspect(image),
            Query::List
            | Query::Pull { .. }
            | Query::Push { .. }
            | Query::Login { .. }
            | Query::Logout { .. }
            | Query::Prune(_)
            | Query::Sizes
            | Query::Volumes(_) => return Err(CommandError::Other),
        })
    }

    /// Whether it takes as long as a client takes to give or to take an archive.
    pub fn is_long(&self) -> bool {
        matches!(self, Self::Save(..) | Self::Import(..))
    }

    /// Does it. May take as long as there is to read or write.
    pub fn run(self, store: &Store) -> Result<Outcome, CommandError> {
        self.run_for(store, None)
    }

    /// The same for a client who reads the answer from this pipe: what is long ends when the client has gone.
    pub fn run_for(self, store: &Store, client: Option<OwnedFd>) -> Result<Outcome, CommandError> {
        match self {
            Self::Save(images, target) => {
                let images: Vec<Found> = images.iter().map(|image| store.find(image)).collect::<Result<_, _>>()?;
                // Nobody gives up their layers meanwhile.
                let _held: Vec<_> = images.iter().map(|image| store.hold(image.digest)).collect();
                let mut target = BufWriter::with_capacity(BUFFER_BYTES, Attended::new(target, client));
                archive::write(store, images, &mut target)?;
                Ok(Outcome::default())
            }
            Self::Import(name, source) => receive(store, &name, source, client),
            Self::Tag(source, target) => {
                let Found { digest, .. } = store.find(&source)?;
                store.name(&target, digest);
                store.commit()?;
                Ok(Outcome { named: vec![target], ..Outcome::default() })
            }
            Self::Remove(image, force) => {
                match store.find(&image)? {
                    Found { name: Some(name), .. } => store.remove_name(&name, force)?,
                    Found { name: None, digest, .. } => store.remove_image(digest, force)?,
                }
                store.settle(true)?;
                Ok(Outcome::default())
            }
            Self::Inspect(image) => {
                let Found { digest, record, .. } = store.find(&image)?;
                Ok(Outcome { texts: vec![store.inspect(digest, &record)?.to_string()], ..Outcome::default() })
            }
        }
    }
}

fn receive(store: &Store, name: &str, source: OwnedFd, client: Option<OwnedFd>) -> Result<Outcome, CommandError> {
    let spool = store.spool()?;
    let source = File::from(source);
    // What can be read again, from its beginning.
    let again = source.metadata().is_ok_and(|metadata| metadata.is_file() || metadata.is_dir());
    let archive = if again {
        let open = || Archive::open(source.try_clone().map_err(ArchiveError::Read)?, name, spool.as_fd(), store.room());
        import::with_room(store, ArchiveError::is_for_want_of_room, open)
    } else {
        // What has come through a pipe does not come again: there is no second try.
        store.make_room()?;
        let stream = BufReader::with_capacity(BUFFER_BYTES, Attended::new(source, client));
        Archive::receive(stream, name, spool.as_fd(), store.room())
    };
    let read = archive.and_then(|archive| Ok((archive.contents()?, archive)));
    let (contents, archive) = read.map_err(|error: ArchiveError| ImportError::from(error))?;
    let brought = import::images(store, &archive, contents);
    for (name, digest) in &brought.names {
        store.name(name, *digest);
    }
    store.commit()?;
    let mut texts: Vec<String> = brought.names.iter().map(|(name, digest)| format!("{name} {digest}")).collect();
    texts.extend(brought.nameless.iter().map(ToString::to_string));
    if texts.is_empty() {
        return Err(CommandError::Rejected { problems: brought.rejected });
    }
    Ok(Outcome { texts, problems: brought.rejected, named: brought.names.into_iter().map(|(name, _)| name).collect() })
}
