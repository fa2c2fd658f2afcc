//! The connection to the control API. The only place that knows how it is reached.

use std::io;
use std::path::Path;

use berth_control::dbus::{Containers1Proxy, Images1Proxy, Machine1Proxy, Volumes1Proxy};
use berth_control::message::{Container, Machine};
use tokio::net::UnixStream;

use super::error::Error;

/// A connection.
pub struct Api {
    /// The machine.
    pub machine: Machine1Proxy<'static>,
    /// Its containers.
    pub containers: Containers1Proxy<'static>,
    /// Images.
    pub images: Images1Proxy<'static>,
    /// Volumes.
    pub volumes: Volumes1Proxy<'static>,
}

impl Api {
    /// Connects to the socket of this machine.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        let failed = |source: zbus::Error| Error::Connect { path: path.to_owned(), source };
        let stream = match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::NotRoot { path: path.to_owned() });
            }
            stream => stream.and_then(UnixStream::into_std).map_err(|error| failed(error.into()))?,
        };
        let connection = zbus::connection::Builder::unix_stream(stream).p2p().build().await.map_err(failed)?;
        Ok(Self {
            machine: Machine1Proxy::new(&connection).await.map_err(failed)?,
            containers: Containers1Proxy::new(&connection).await.map_err(failed)?,
            images: Images1Proxy::new(&connection).await.map_err(failed)?,
            volumes: Volumes1Proxy::new(&connection).await.map_err(failed)?,
        })
    }

    /// The machine as it is now.
    pub async fn describe(&self) -> Result<Machine, Error> {
        Ok(self.machine.describe().await?.into())
    }

    /// Every container as it is now.
    pub async fn list(&self) -> Result<Vec<Container>, Error> {
        Ok(self.containers.list().await?.into_iter().map(Into::into).collect())
    }
}
