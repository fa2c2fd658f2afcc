//! Device nodes of the machine for containers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use berth_runtime::spec::Device;
use nix::sys::stat::{major, minor};

/// The device of the machine's node `source`, to appear at `destination`; the runtime also allows access to it.
pub fn node(source: &str, destination: &str) -> Result<Device, String> {
    let metadata = fs::metadata(source).map_err(|error| format!("device {source}: {error}"))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(format!("device {source}: it is not a device node")),
    };
    Ok(Device {
        kind: kind.to_owned(),
        path: PathBuf::from(destination),
        major: i64::try_from(major(metadata.rdev())).unwrap_or_default(),
        minor: i64::try_from(minor(metadata.rdev())).unwrap_or_default(),
        ..Device::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_what_the_machine_says() {
        let null = node("/dev/null", "/dev/nothing").unwrap();
        assert_eq!((null.kind.as_str(), null.major, null.minor), ("c", 1, 3));
        assert!(node("/etc/passwd", "/dev/x").unwrap_err().contains("/etc/passwd"));
        assert!(node("/no/such", "/dev/x").is_err());
    }
}
