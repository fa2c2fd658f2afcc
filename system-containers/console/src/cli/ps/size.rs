//! What containers take of the disk, for `berth ps --size`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::OwnedFd;

use berth_control::images::ContainerSize;
use berth_control::message::Container;
use serde::Serialize;

use super::super::api::Api;
use super::super::error::Error;
use super::super::{answers, format};

/// What it is called in templates, first by docker.
pub const NAMES: [&str; 3] = ["Size", "written_bytes", "image_bytes"];

/// In bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// What it has written to its own file system; `None` where nobody counts it.
    #[serde(rename = "written_bytes")]
    pub written: Option<u64>,
    /// Its image; `None` if that is not there.
    #[serde(rename = "image_bytes")]
    pub image: Option<u64>,
}

impl Size {
    /// As docker has it: what it has written, and both together.
    pub fn text(&self) -> String {
        match (self.written, self.image) {
            (None, _) => "-".to_owned(),
            (Some(written), None) => format::bytes(written),
            (Some(written), Some(image)) => {
                format!("{} (virtual {})", format::bytes(written), format::bytes(written.saturating_add(image)))
            }
        }
    }
}

/// A container in the list, with its size if that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub container: Container,
    #[serde(flatten)]
    pub size: Option<Size>,
}

/// Without a size.
impl From<Container> for Listed {
    fn from(container: Container) -> Self {
        Self { container, size: None }
    }
}

impl Listed {
    /// The same containers, with their sizes if those are wanted.
    pub async fn of(api: &Api, containers: Vec<Container>, sized: bool) -> Result<Vec<Self>, Error> {
        if !sized {
            return Ok(containers.into_iter().map(Self::from).collect());
        }
        let pipe = File::from(OwnedFd::from(api.containers.sizes().await?));
        let sizes = answers::each(BufReader::new(pipe)).map(|size: Result<ContainerSize, Error>| {
            size.map(|ContainerSize { name, written, image }| (name, Size { written, image }))
        });
        let sizes = sizes.collect::<Result<BTreeMap<_, _>, Error>>()?;
        // Berth's own write nowhere.
        let size = |container: &Container| Some(sizes.get(&container.name).copied().unwrap_or_default());
        Ok(containers.into_iter().map(|container| Self { size: size(&container), container }).collect())
    }
}
