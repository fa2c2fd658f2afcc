//! org.berth.Volumes1: volumes, which the `engine` system container keeps.

use std::collections::HashMap;

use berth_control::dbus::ApiError;
use berth_control::images::{Query, VolumeQuery};
use zbus::wire::OwnedFd;

use crate::images::Engine;

/// Serves the interface to one client.
pub struct Volumes1(pub Engine);

// `spawn = false`: see `Machine1`.
#[zbus::interface(name = "org.berth.Volumes1", spawn = false, introspection_docs = false)]
impl Volumes1 {
    async fn list(&self) -> Result<OwnedFd, ApiError> {
        self.query(VolumeQuery::List).await
    }

    async fn create(&self, name: String, labels: HashMap<String, String>, limit: u64) -> Result<OwnedFd, ApiError> {
        let limit = (limit > 0).then_some(limit);
        self.query(VolumeQuery::Create { name, labels: labels.into_iter().collect(), limit }).await
    }

    async fn remove(&self, names: Vec<String>, force: bool) -> Result<OwnedFd, ApiError> {
        self.query(VolumeQuery::Remove { names, force }).await
    }

    async fn prune(&self, all: bool, dry_run: bool) -> Result<OwnedFd, ApiError> {
        self.query(VolumeQuery::Prune { all, dry_run }).await
    }
}

impl Volumes1 {
    async fn query(&self, query: VolumeQuery) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Volumes(query), None).await
    }
}
