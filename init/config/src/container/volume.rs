//! Directories from outside the image: volumes, directories of the machine, directories in memory.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::names::{AbsolutePath, NameError, VolumeName};
use crate::quantities::{QuantityError, Size};
use crate::text::text_value;

/// Why text is no volume.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// Only a destination is there.
    #[error("it does not say where in the container the volume appears")]
    OneSided,
    /// Compose's paths relative to its file have no meaning here.
    #[error("{path:?} is relative, and there is no directory that it could be relative to")]
    Relative {
        /// As written.
        path: String,
    },
    /// A name or path that is none.
    #[error("{text:?}: {source}")]
    Name {
        /// As written.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Something in front of the container's own root.
    #[error("a volume cannot appear at \"/\", which is the image's")]
    Root,
    /// Not an option.
    #[error("{option:?} is not an option here")]
    Option {
        /// As written.
        option: String,
    },
    /// A size that is none.
    #[error("{source}")]
    Size {
        /// What is wrong with it.
        source: QuantityError,
    },
}

/// One entry of `volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Volume {
    /// A volume that Berth keeps on the state partition and makes when it is first used.
    Named {
        /// Its name; containers that name the same volume share it.
        name: VolumeName,
        /// In the container.
        destination: AbsolutePath,
        /// Whether the container may only read it.
        read_only: bool,
    },
    /// A directory or file of the machine.
    Host {
        /// On the machine.
        source: AbsolutePath,
        /// In the container.
        destination: AbsolutePath,
        /// Whether the container may only read it.
        read_only: bool,
        /// Whether the container's ids stand for the machine's, so that what root owns there its root owns here.
        id_mapped: bool,
    },
}

text_value!(
    Volume,
    "\"name:/path\" or \"/path of the machine:/path\", with \":ro\" behind it for reading only, or \":idmap\" behind a path for the \
     container's ids"
);

impl Volume {
    /// In the container.
    pub fn destination(&self) -> &AbsolutePath {
        match self {
            Self::Named { destination, .. } | Self::Host { destination, .. } => destination,
        }
    }

    /// Whether the container may only read it.
    pub fn read_only(&self) -> bool {
        match self {
            Self::Named { read_only, .. } | Self::Host { read_only, .. } => *read_only,
        }
    }

    /// Whether it is a path of the machine with the container's ids; volumes with a name always have them.
    fn is_id_mapped_path(&self) -> bool {
        matches!(self, Self::Host { id_mapped: true, .. })
    }
}

fn parse_destination(text: &str) -> Result<AbsolutePath, VolumeError> {
    match text.parse::<AbsolutePath>() {
        Ok(path) if path.as_str() == "/" => Err(VolumeError::Root),
        Ok(path) => Ok(path),
        Err(source) => Err(VolumeError::Name { text: text.to_owned(), source }),
    }
}

impl FromStr for Volume {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let Some((source, rest)) = text.split_once(':') else {
            return Err(VolumeError::OneSided);
        };
        let (destination, options) = rest.split_once(':').unwrap_or((rest, "rw"));
        let (mut read_only, mut id_mapped) = (false, false);
        for option in options.split(',') {
            match option {
                "rw" => read_only = false,
                "ro" => read_only = true,
                "idmap" if source.starts_with('/') => id_mapped = true,
                _ => return Err(VolumeError::Option { option: option.to_owned() }),
            }
        }
        let destination = parse_destination(destination)?;
        if source.starts_with('.') || source.starts_with('~') {
            return Err(VolumeError::Relative { path: source.to_owned() });
        }
        let name = |error| VolumeError::Name { text: source.to_owned(), source: error };
        Ok(if source.starts_with('/') {
            Self::Host { source: source.parse().map_err(name)?, destination, read_only, id_mapped }
        } else {
            Self::Named { name: source.parse().map_err(name)?, destination, read_only }
        })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Named { name, destination, .. } => write!(formatter, "{name}:{destination}")?,
            Self::Host { source, destination, .. } => write!(formatter, "{source}:{destination}")?,
        }
        formatter.write_str(match (self.read_only(), self.is_id_mapped_path()) {
            (false, false) => "",
            (true, false) => ":ro",
            (false, true) => ":idmap",
            (true, true) => ":ro,idmap",
        })
    }
}

/// One entry of `tmpfs`: `/path[:size=64M,mode=1777]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemporaryMount {
    destination: AbsolutePath,
    size: Option<Size>,
    mode: Option<u16>,
}

text_value!(TemporaryMount, "a directory such as \"/run\" or \"/tmp:size=64M,mode=1777\"");

impl TemporaryMount {
    /// In the container.
    pub fn destination(&self) -> &AbsolutePath {
        &self.destination
    }

    /// The most it may hold; half of the memory, the kernel's default, if `None`.
    pub fn size(&self) -> Option<Size> {
        self.size
    }

    /// Its permission bits; 1777, the kernel's default, if `None`.
    pub fn mode(&self) -> Option<u16> {
        self.mode
    }
}

impl FromStr for TemporaryMount {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        let mut mount = Self { destination: parse_destination(destination)?, size: None, mode: None };
        for option in options.split(',').filter(|_| text.contains(':')) {
            match option.split_once('=') {
                Some(("size", size)) => mount.size = Some(size.parse().map_err(|source| VolumeError::Size { source })?),
                Some(("mode", mode)) if mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) => {
                    let mode = u16::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
                    mount.mode = Some(mode.ok_or_else(|| VolumeError::Option { option: option.to_owned() })?);
                }
                _ => return Err(VolumeError::Option { option: option.to_owned() }),
            }
        }
        Ok(mount)
    }
}

impl fmt::Display for TemporaryMount {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}", self.destination)?;
        match (self.size, self.mode) {
            (None, None) => Ok(()),
            (Some(size), None) => write!(formatter, ":size={size}"),
            (None, Some(mode)) => write!(formatter, ":mode={mode:04o}"),
            (Some(size), Some(mode)) => write!(formatter, ":size={size},mode={mode:04o}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_names_or_paths_of_the_machine() {
        let volume = |text: &str| text.parse::<Volume>().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(matches!(volume("data:/var/lib"), Volume::Named { read_only: false, .. }));
        assert!(matches!(volume("data:/var/lib:ro"), Volume::Named { read_only: true, .. }));
        assert!(matches!(volume("/srv:/www:rw"), Volume::Host { read_only: false, .. }));
        assert_eq!(volume("/srv:/www:ro").to_string(), "/srv:/www:ro");
        assert_eq!(volume("/srv:/www:rw").to_string(), "/srv:/www");
        assert!(matches!(volume("/srv:/www:idmap"), Volume::Host { read_only: false, id_mapped: true, .. }));
        assert_eq!(volume("/srv:/www:idmap,ro").to_string(), "/srv:/www:ro,idmap");
        assert_eq!(volume("/srv:/www:rw,idmap").to_string(), "/srv:/www:idmap");
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let error = |text: &str| text.parse::<Volume>().expect_err(text);
        assert_eq!(error("/data"), VolumeError::OneSided);
        assert_eq!(error("data:/"), VolumeError::Root);
        assert_eq!(error("./data:/data"), VolumeError::Relative { path: "./data".to_owned() });
        assert_eq!(error("../data:/data"), VolumeError::Relative { path: "../data".to_owned() });
        assert_eq!(error("data:/data:idmap"), VolumeError::Option { option: "idmap".to_owned() });
        assert_eq!(error("data:/data:z"), VolumeError::Option { option: "z".to_owned() });
        assert_eq!(error("data:/data:ro:x"), VolumeError::Option { option: "ro:x".to_owned() });
        assert!(matches!(error("a/b:/data"), VolumeError::Name { .. }));
        assert!(matches!(error("/a/../b:/data"), VolumeError::Name { .. }));
        assert!(matches!(error(":/data"), VolumeError::Name { .. }));
        assert!(matches!(error("data:data"), VolumeError::Name { .. }));
    }

    #[test]
    fn directories_in_memory_have_a_size_and_a_mode() {
        let mount = |text: &str| text.parse::<TemporaryMount>();
        let full = mount("/tmp:size=64M,mode=1777").expect("it is good");
        assert_eq!((full.size().map(Size::bytes), full.mode()), (Some(64 << 20), Some(0o1777)));
        assert_eq!(full.to_string(), "/tmp:size=64M,mode=1777");
        assert_eq!(mount("/run").map(|mount| (mount.size(), mount.mode())), Ok((None, None)));
        for text in [
            "/",
            "run",
            "/run:",
            "/run:size",
            "/run:size=x",
            "/run:mode=8",
            "/run:mode=10000",
            "/run:exec",
            "/run:mode=",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
