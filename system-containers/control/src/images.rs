//! org.berth.Images1: images, which the `engine` system container keeps.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use berth_config::ApiPart;
use berth_control::channel::{Channel, ChannelError};
use berth_control::dbus::ApiError;
use berth_control::images::{Answer, Prune, Query, VolumeQuery};
use nix::fcntl::OFlag;
use zbus::wire::OwnedFd;

use crate::caller::Caller;
use crate::sys;

/// How long `engine` has to take a query. It does nothing before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the interface to one client.
pub struct Images1(pub Engine);

/// The way of one client to the `engine` system container.
#[derive(Clone)]
pub struct Engine {
    /// What the client may.
    pub access: Caller,
    /// The socket of `engine`.
    pub socket_path: PathBuf,
}

// `spawn = false`: see `Machine1`.
#[zbus::interface(name = "org.berth.Images1", spawn = false, introspection_docs = false)]
impl Images1 {
    async fn pull(&self, image: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Pull { image }, None).await
    }

    async fn list(&self) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::List, None).await
    }

    async fn push(&self, image: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Push { image }, None).await
    }

    async fn login(&self, registry: String, username: String, password: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Login { registry, username, password }, None).await
    }

    async fn logout(&self, registry: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Logout { registry }, None).await
    }

    async fn save(&self, images: Vec<String>, target: OwnedFd) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Save { images }, Some(target)).await
    }

    async fn import(&self, source: OwnedFd, name: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Import { name }, Some(source)).await
    }

    async fn tag(&self, source: String, target: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Tag { source, target }, None).await
    }

    async fn remove(&self, image: String, force: bool) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Remove { image, force }, None).await
    }

    async fn inspect(&self, image: String) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Inspect { image }, None).await
    }

    async fn prune(&self, all: bool, unused_s: u64, dry_run: bool) -> Result<OwnedFd, ApiError> {
        self.0.query(Query::Prune(Prune { all, unused_s, dry_run }), None).await
    }
}

impl Engine {
    /// The read end of a pipe with what was asked for.
    pub async fn query(&self, query: Query, file: Option<OwnedFd>) -> Result<OwnedFd, ApiError> {
        self.access.check(match &query {
            Query::List | Query::Inspect { .. } => ApiPart::ImagesList,
            Query::Sizes => ApiPart::ContainersList,
            Query::Save { .. } | Query::Push { .. } => ApiPart::ImagesExport,
            Query::Login { .. } | Query::Logout { .. } => ApiPart::ImagesLogin,
            Query::Import { .. } | Query::Tag { .. } => ApiPart::ImagesImport,
            Query::Remove { .. } => ApiPart::ImagesRemove,
            Query::Pull { .. } => ApiPart::ImagesPull,
            Query::Prune(_) => ApiPart::ImagesPrune,
            Query::Volumes(VolumeQuery::List) => ApiPart::VolumesList,
            Query::Volumes(_) => ApiPart::VolumesChange,
        })?;
        let asking = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(query, file));
        match asking.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((Answer::Coming, lines)) => Ok(lines.into()),
            Ok((Answer::Refused(reason), _)) => Err(ApiError::Refused(reason)),
            Err(error) => Err(ApiError::Unavailable(format!(
                "the system container `engine` does not answer ({error}); `berth ps --all` shows its state"
            ))),
        }
    }

    async fn ask(&self, query: Query, file: Option<OwnedFd>) -> io::Result<(Answer, std::os::fd::OwnedFd)> {
        let channel = Channel::connect(&self.socket_path).map_err(io::Error::other)?;
        let (lines, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let descriptors: Vec<_> = [writer.as_fd()].into_iter().chain(file.as_ref().map(AsFd::as_fd)).collect();
        channel.send(&query, &descriptors).map_err(io::Error::other)?;
        drop(writer);
        let answer = sys::watch(channel)?
            .async_io(tokio::io::Interest::READABLE, |channel| match channel.receive::<Answer>() {
                Err(ChannelError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                received => received.map(|(answer, _)| answer).map_err(io::Error::other),
            })
            .await?;
        Ok((answer, lines))
    }
}
