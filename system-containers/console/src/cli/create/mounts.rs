//! The flags of `berth run` and `berth create` that put directories into a container, as docker has them.

use std::str::FromStr;

use berth_config::{TemporaryMount, Volume};
use clap::Args;

/// What is in it beside its image.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// A volume, or a directory of the machine
    #[arg(short, long = "volume", value_name = "SOURCE:PATH[:ro]")]
    volumes: Vec<Volume>,
    /// A directory in memory
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<TemporaryMount>,
    /// The same in words: type=volume, bind or tmpfs, source=, target=, readonly, tmpfs-size=, tmpfs-mode=
    #[arg(long = "mount", value_name = "KEY=VALUE,…")]
    mounts: Vec<Mount>,
}

impl Arguments {
    /// Volumes and directories of the machine, and directories in memory.
    pub fn all(self) -> (Vec<Volume>, Vec<TemporaryMount>) {
        let (mut volumes, mut tmpfs) = (self.volumes, self.tmpfs);
        for mount in self.mounts {
            match mount {
                Mount::Volume(volume) => volumes.push(volume),
                Mount::Temporary(mount) => tmpfs.push(mount),
            }
        }
        (volumes, tmpfs)
    }
}

/// What `--mount` says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mount {
    Volume(Volume),
    Temporary(TemporaryMount),
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut kind, mut source, mut target, mut read_only) = ("volume", "", "", false);
        let mut options = Vec::new();
        for word in text.split(',') {
            match word.split_once('=').unwrap_or((word, "true")) {
                ("type", value) => kind = value,
                ("source" | "src", value) => source = value,
                ("target" | "destination" | "dst", value) => target = value,
                ("readonly" | "ro", value) => read_only = matches!(value, "true" | "1"),
                ("tmpfs-size", value) => options.push(format!("size={value}")),
                ("tmpfs-mode", value) => options.push(format!("mode={value}")),
                (key, _) => {
                    return Err(format!(
                        "{key} is not known; there are type, source, target, readonly, tmpfs-size, tmpfs-mode"
                    ));
                }
            }
        }
        let wrong = |error: &dyn std::fmt::Display| error.to_string();
        match kind {
            "volume" | "bind" if source.is_empty() || target.is_empty() => {
                Err("it needs source= and target=".to_owned())
            }
            "volume" | "bind" if source.starts_with('/') != (kind == "bind") => {
                Err("the source of type=bind is a path of the machine, that of type=volume a name".to_owned())
            }
            "volume" | "bind" => {
                let volume = format!("{source}:{target}{}", if read_only { ":ro" } else { "" });
                volume.parse().map(Self::Volume).map_err(|error| wrong(&error))
            }
            "tmpfs" if target.is_empty() => Err("it needs target=".to_owned()),
            "tmpfs" => {
                let separator = if options.is_empty() { "" } else { ":" };
                let mount = format!("{target}{separator}{}", options.join(","));
                mount.parse().map(Self::Temporary).map_err(|error| wrong(&error))
            }
            other => Err(format!("type={other} is not known; there are volume, bind and tmpfs")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_in_words_is_one_of_the_short_forms() {
        let volume = |text: &str| Ok(Mount::Volume(text.parse().unwrap()));
        assert_eq!("source=data,target=/d".parse::<Mount>(), volume("data:/d"));
        assert_eq!("type=bind,src=/srv,dst=/s,readonly".parse::<Mount>(), volume("/srv:/s:ro"));
        assert_eq!("type=volume,source=data,destination=/d,ro=false".parse::<Mount>(), volume("data:/d"));
        let temporary = "/t:size=1M,mode=1777".parse().unwrap();
        assert_eq!("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777".parse(), Ok(Mount::Temporary(temporary)));
        for (text, part) in [
            ("type=bind,source=data,target=/d", "path of the machine"),
            ("target=/d", "needs source="),
            ("type=npipe", "npipe"),
            ("source=a,target=/b,volume-nocopy", "volume-nocopy is not known"),
            ("type=tmpfs", "needs target="),
        ] {
            let error = text.parse::<Mount>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
