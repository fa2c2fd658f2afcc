//! The connection to the control API. The only place that knows how it is reached.

#[cfg(test)]
pub mod peer;

use std::io;
use std::path::Path;

use berth_control::dbus::{self, ApiError, Containers1Proxy, Images1Proxy, Machine1Proxy, Volumes1Proxy};
use berth_control::listing;
use berth_control::message::{Container, Machine};
use tokio::net::UnixStream;
use zbus::Type;
use zbus::message::NATIVE_ENDIAN_SIG;

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
        Self::over(stream).await.map_err(failed)
    }

    /// Speaks to whoever is at the other end.
    async fn over(stream: std::os::unix::net::UnixStream) -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::unix_stream(stream).p2p().build().await?;
        Ok(Self {
            machine: Machine1Proxy::new(&connection).await?,
            containers: Containers1Proxy::new(&connection).await?,
            images: Images1Proxy::new(&connection).await?,
            volumes: Volumes1Proxy::new(&connection).await?,
        })
    }

    /// The machine as it is now.
    pub async fn describe(&self) -> Result<Machine, Error> {
        Ok(self.machine.describe().await?.into())
    }

    /// One container as it is now.
    pub async fn inspect(&self, name: &str) -> Result<Container, Error> {
        Ok(self.containers.inspect(name).await?.into())
    }

    /// The containers that names stand for: themselves, or all replicas of those that have them. A name that this client
    /// may not ask about, or that is unknown, stands for itself: what is done with it says what is wrong.
    pub async fn instances(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for name in names {
            match self.containers.instances(name).await {
                Err(ApiError::Refused(_)) => all.push(name.clone()),
                instances => all.extend(instances?),
            }
        }
        Ok(all)
    }

    /// The one container that a command is for; of several replicas the first, as Compose has it.
    pub async fn first_instance(&self, name: &str) -> Result<String, Error> {
        let instances = self.instances(&[name.to_owned()]).await?;
        Ok(instances.into_iter().next().unwrap_or_default())
    }

    /// Every container as it is now.
    pub async fn list(&self) -> Result<Vec<Container>, Error> {
        let answer = self.containers.inner().call_method("List", &()).await.map_err(ApiError::from)?;
        let body = answer.body();
        // Of a thousand containers, zbus would look at each of twelve thousand values' type and name.
        if body.signature() == <Vec<dbus::Container>>::SIGNATURE
            && answer.primary_header().endian_sig() == NATIVE_ENDIAN_SIG
            && let Some(containers) = listing::read(body.data().bytes())
        {
            return Ok(containers);
        }
        let containers: Vec<dbus::Container> = body.deserialize().map_err(ApiError::from)?;
        Ok(containers.into_iter().map(Into::into).collect())
    }
}
