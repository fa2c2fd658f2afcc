//! Everything that PID 1 needs to run a container from a present image.

use std::path::PathBuf;

use berth_config::{Container, Size};
use berth_control::message::{Declaration, PreparedImage};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::import::with_room;
use crate::layer::LayerError;
use crate::process::{self, ProcessError};
use crate::snapshot;
use crate::store::{ImageRecord, Store, StoreError};
use crate::volumes::{self, Places, VolumeError};

/// Why a container cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The image's layers cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process cannot be decided.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A volume cannot be had.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The writable layer cannot be made or removed.
    #[error("make or remove the container's writable layer")]
    Snapshot(#[source] LayerError),
}

impl PrepareError {
    /// Whether it failed because the disk is full, or nearly.
    fn is_for_want_of_room(&self) -> bool {
        let (Self::Volume(VolumeError::Make { source, .. }) | Self::Snapshot(source)) = self else { return false };
        // A limit of the container or the volume is not the disk's: no image that goes would help.
        source.is_for_want_of_room() && !matches!(source, LayerError::System { source: Errno::DQUOT, .. })
    }
}

/// Where containers' own files lie.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Writable layers.
    pub containers: PathBuf,
    /// Volumes.
    pub places: Places,
}

/// Removes the writable layers of a container that is gone, and the volumes that only its image asked for.
pub fn forget(folders: &Folders, name: &str, volumes: bool) -> Result<(), PrepareError> {
    snapshot::forget(&folders.containers, name).map_err(PrepareError::Snapshot)?;
    if volumes {
        volumes::forget(&folders.places, name)?;
    }
    Ok(())
}

/// Prepares one container. If there is no room for it, images that nothing needs go.
pub fn container(
    store: &Store,
    folders: &Folders,
    declaration: &Declaration,
    digest: Digest,
    image: &ImageRecord,
) -> Result<PreparedImage, PrepareError> {
    with_room(store, PrepareError::is_for_want_of_room, || prepare(store, folders, declaration, digest, image))
}

fn prepare(
    store: &Store,
    folders: &Folders,
    declaration: &Declaration,
    digest: Digest,
    image: &ImageRecord,
) -> Result<PreparedImage, PrepareError> {
    let Declaration { name, container, trial, .. } = declaration;
    let merged = store.merged(&image.chain)?;
    let wishes = store.wishes(image)?;
    let process = process::build(name, container, &wishes, &merged)?;
    let mounts = volumes::prepare(&folders.places, name, container, &wishes, &merged, store.room())?;
    let definition = format!("{digest} {}", definition(container));
    let limit = container.storage.map(Size::bytes);
    let snapshot = snapshot::prepare(&folders.containers, name, definition.as_bytes(), &merged, limit, *trial)
        .map_err(PrepareError::Snapshot)?;
    let unlimited = (limit.is_some() && !snapshot.limited).then(|| {
        "its `storage` has no effect: the file system of the state has no project quotas, which one made by Berth on a \
         blank partition has"
            .to_owned()
    });
    let health = process::health(&wishes);
    let unchecked = (health.is_none() && only_times(container)).then(|| {
        "its `health` says when and not what, and its image has no health check: nothing is checked".to_owned()
    });
    Ok(PreparedImage {
        digest: digest.to_string(),
        layers: store.layers(&image.chain),
        upper: snapshot.upper,
        work: snapshot.work,
        arguments: process.arguments,
        environment: process.environment,
        working_directory: process.working_directory,
        uid: process.account.uid,
        gid: process.account.gid,
        additional_gids: process.account.additional_gids,
        stop_signal: process.stop_signal,
        exposed: process::exposed(&wishes),
        mounts,
        health,
        labels: wishes.labels.unwrap_or_default(),
        remarks: unlimited.into_iter().chain(unchecked).collect(),
    })
}

/// Whether its health check is to be its image's, at other times.
fn only_times(container: &Container) -> bool {
    container.health.as_ref().is_some_and(|health| !health.disable && !health.is_complete())
}

/// What a new writable layer is due to when it changes: all that makes PID 1 end the container and begin it anew, see
/// [`berth_config::Action::between`].
fn definition(container: &Container) -> String {
    let same = container.updated_by(&Container::new(container.image.clone()));
    // It is plain data, which always has a JSON form.
    serde_json::to_string(&same).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_alone_looks_at_makes_no_new_layer() {
        let read = |text: &str| -> Container { serde_json::from_str(text).unwrap() };
        let before = definition(&read(r#"{"image":"x","memory":"64M"}"#));
        let updated = r#"{"image":"x","memory":"64M","restart":"no","labels":{"a":"b"},"depends_on":["db"]}"#;
        assert_eq!(definition(&read(updated)), before);
        assert_ne!(definition(&read(r#"{"image":"x","memory":"65M"}"#)), before);
    }
}
