//! Finding and opening the virtio-serial port by the name the hypervisor gave it.
//!
//! There is no udev that would make /dev/virtio-ports: the kernel tells each port's name in
//! /sys/class/virtio-ports/vport*/name, and devtmpfs has the node of the same name as the directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// The port's name, chosen by QEMU's agent and expected by libvirt.
pub const NAME: &str = "org.qemu.guest_agent.0";

/// Why there is no port to serve.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The kernel knows no virtio-serial port, or its directory cannot be read.
    #[error("list the virtio-serial ports in {directory}")]
    List {
        /// What was read.
        directory: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There are ports, but none of this name.
    #[error("no virtio-serial port is called {name}: add one to the machine")]
    Missing {
        /// The name.
        name: String,
    },
    /// The node cannot be opened. The kernel allows one opener only.
    #[error("open {path}")]
    Open {
        /// The node.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: rustix::io::Errno,
    },
}

/// The device node under `devices` of the port called `name`, by the kernel's list in `class`.
pub fn find(class: &Path, devices: &Path, name: &str) -> Result<PathBuf, PortError> {
    let list = |source| PortError::List { directory: class.to_owned(), source };
    for entry in std::fs::read_dir(class).map_err(list)? {
        let entry = entry.map_err(list)?;
        // A port without a name has no such file, or an empty one; a port that goes away meanwhile neither.
        let Ok(found) = std::fs::read_to_string(entry.path().join("name")) else { continue };
        if found.trim_end() == name {
            return Ok(devices.join(entry.file_name()));
        }
    }
    Err(PortError::Missing { name: name.to_owned() })
}

/// Opens the port for reading and writing; it never blocks.
pub fn open(path: &Path) -> Result<OwnedFd, PortError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|source| PortError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        for (port, name) in [("vport0p1", Some("com.redhat.spice.0\n")), ("vport0p2", None), ("vport1p1", Some(NAME))] {
            std::fs::create_dir(class.path().join(port)).unwrap();
            if let Some(name) = name {
                std::fs::write(class.path().join(port).join("name"), name).unwrap();
            }
        }
        assert_eq!(find(class.path(), Path::new("/dev"), NAME).unwrap(), Path::new("/dev/vport1p1"));
        assert!(matches!(find(class.path(), Path::new("/dev"), "other"), Err(PortError::Missing { .. })));
    }

    #[test]
    fn a_machine_without_ports_says_so() {
        let nowhere = Path::new("/nonexistent/virtio-ports");
        assert!(matches!(find(nowhere, Path::new("/dev"), NAME), Err(PortError::List { .. })));
    }
}
