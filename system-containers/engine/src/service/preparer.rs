//! The thread that prepares containers and keeps volumes: one thing at a time, in order, for preparing may copy an image's
//! files into a volume, and a new container can have the name of one that is gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use berth_control::images::VolumeQuery;
use berth_control::message::Declaration;

use super::{Message, ServiceError, system};
use crate::digest::Digest;
use crate::import::describe;
use crate::prepare::{self, Folders};
use crate::store::{ImageRecord, Store};
use crate::{answers, volumes};

/// What it does.
pub(super) enum Job {
    Prepare(Box<Preparation>),
    Forget { name: String, volumes: bool },
    Volumes { query: VolumeQuery, users: volumes::Users, pipe: OwnedFd },
}

/// A container to prepare.
pub(super) struct Preparation {
    pub declaration: Declaration,
    pub round: u64,
    pub digest: Digest,
    pub image: ImageRecord,
}

/// Starts it.
pub(super) fn start(
    store: Arc<Store>,
    folders: Folders,
    report: impl Fn(Message) + Send + 'static,
) -> Result<Sender<Job>, ServiceError> {
    let (sender, receiver) = std::sync::mpsc::channel::<Job>();
    let work = move || {
        for job in receiver {
            match job {
                Job::Prepare(preparation) => {
                    let Preparation { declaration, round, digest, image } = *preparation;
                    let prepared = prepare::container(&store, &folders, &declaration, digest, &image);
                    let name = declaration.name;
                    let result = Box::new(prepared.map_err(|error| describe(&error)));
                    report(Message::Prepared { name, round, result });
                }
                Job::Forget { name, volumes } => {
                    if let Err(error) = prepare::forget(&folders, &name, volumes) {
                        // It takes space and harms nobody: the next container of that name begins a layer of its own.
                        eprintln!("engine: remove what is left of {name}: {}", describe(&error));
                    }
                    report(Message::Forgotten { name });
                }
                Job::Volumes { query, users, pipe } => {
                    answers::write(pipe, &volumes::answer(&folders.places, &users, query));
                }
            }
        }
    };
    std::thread::Builder::new().name("preparer".to_owned()).spawn(work).map_err(system("start the preparer"))?;
    Ok(sender)
}
