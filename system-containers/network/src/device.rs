//! What sysfs knows about the hardware behind a link, and the kernel's randomness.

use std::fs;
use std::path::Path;

/// A link's hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The kernel's driver; empty if there is none.
    pub driver: String,
    /// Where it sits, as udev's ID_PATH has it for PCI: `pci-0000:00:03.0`; empty if unknown.
    pub path: String,
}

impl Device {
    /// Of the link with this name, which was checked by the kernel and holds no slash.
    pub fn of_link(name: &str) -> Self {
        Self::read(&Path::new("/sys/class/net").join(name).join("device"))
    }

    fn read(device: &Path) -> Self {
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let driver = fs::canonicalize(device.join("driver")).map(|path| last(&path)).unwrap_or_default();
        let place = fs::canonicalize(device).unwrap_or_default();
        // A virtio device hangs below its PCI function; the function is the place.
        let function = place.ancestors().map(last).find(|name| is_pci_function(name));
        Self { driver, path: function.map(|name| format!("pci-{name}")).unwrap_or_default() }
    }
}

/// `0000:00:03.0`
fn is_pci_function(name: &str) -> bool {
    let hexadecimal =
        |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = name.split([':', '.']);
    let lengths = [4, 2, 2, 1];
    name.len() == 12 && lengths.into_iter().all(|length| parts.next().is_some_and(|part| hexadecimal(part, length)))
}

/// Eight bytes that nobody can guess; the time if the kernel has none to give.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match read {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => u64::try_from(crate::clock::now().as_nanos()).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn driver_and_place_are_read_from_the_links_of_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("devices/pci0000:00/0000:00:03.0/virtio0");
        let driver = root.path().join("bus/virtio/drivers/virtio_net");
        fs::create_dir_all(&function).unwrap();
        fs::create_dir_all(&driver).unwrap();
        symlink(&driver, function.join("driver")).unwrap();
        symlink(&function, root.path().join("device")).unwrap();
        let device = Device::read(&root.path().join("device"));
        assert_eq!(device, Device { driver: "virtio_net".into(), path: "pci-0000:00:03.0".into() });
    }

    #[test]
    fn a_link_without_hardware_has_neither() {
        assert_eq!(Device::read(Path::new("/nonexistent/device")), Device::default());
    }
}
