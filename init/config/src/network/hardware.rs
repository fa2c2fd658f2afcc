//! What sysfs knows about the hardware behind a link.

use std::fs;
use std::path::Path;

/// A link's hardware, as far as `match` asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The kernel's driver; empty if there is none.
    pub driver: String,
    /// Where it sits, from the nearest PCI or platform device on: `pci-0000:00:03.0`, `pci-0000:00:14.0-usb-0:2:1.0`,
    /// `platform-fd580000.ethernet`; by its bus and name where it hangs on none of these; empty if there is none.
    pub path: String,
}

impl Hardware {
    /// Of the link with this name, which was checked by the kernel and holds no slash.
    pub fn of_link(name: &str) -> Self {
        Self::read(&Path::new("/sys/class/net").join(name).join("device"))
    }

    fn read(device: &Path) -> Self {
        let Ok(device) = fs::canonicalize(device) else { return Self::default() };
        Self { driver: target(&device.join("driver")), path: path(&device) }
    }
}

/// The last part of where a symbolic link leads.
fn target(link: &Path) -> String {
    fs::read_link(link).map(|target| last(&target)).unwrap_or_default()
}

fn last(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// From the device up to the bus that it hangs on. A virtio device hangs on what it was found at.
fn path(device: &Path) -> String {
    let mut usb = String::new();
    for place in device.ancestors() {
        let name = last(place);
        match target(&place.join("subsystem")).as_str() {
            // An interface; the card and the hubs above it have shorter names, which begin it.
            "usb" if usb.is_empty() => {
                let port = name.split_once('-').map_or(name.as_str(), |(_, port)| port);
                usb = format!("-usb-0:{port}");
            }
            bus @ ("pci" | "platform") => return format!("{bus}-{name}{usb}"),
            _ => {}
        }
    }
    match target(&device.join("subsystem")) {
        bus if bus.is_empty() => bus,
        bus => format!("{bus}-{}", last(device)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A device below /sys/devices, with the bus of each of its parts that has one.
    fn path_of(places: &[(&str, &str)]) -> String {
        let root = std::env::temp_dir().join(format!("hardware-{}-{}", std::process::id(), places.len()));
        let mut place = root.clone();
        for (name, bus) in places {
            place.push(name);
            fs::create_dir_all(&place).expect("a folder");
            if !bus.is_empty() {
                symlink(format!("/sys/bus/{bus}"), place.join("subsystem")).expect("a link");
            }
        }
        symlink("/sys/bus/virtio/drivers/virtio_net", place.join("driver")).expect("a link");
        symlink(&place, root.join("device")).expect("a link");
        let hardware = Hardware::read(&root.join("device"));
        fs::remove_dir_all(&root).expect("the folder is there");
        assert_eq!(hardware.driver, "virtio_net");
        hardware.path
    }

    #[test]
    fn the_place_is_that_of_the_bus_a_card_hangs_on() {
        let (bridge, card) = (("0000:00:01.0", "pci"), ("0000:01:00.0", "pci"));
        assert_eq!(path_of(&[("pci0000:00", ""), bridge, card, ("virtio0", "virtio")]), "pci-0000:01:00.0");
        let usb = [("0000:00:14.0", "pci"), ("usb1", "usb"), ("1-2", "usb"), ("1-2.4", "usb"), ("1-2.4:1.0", "usb")];
        assert_eq!(path_of(&usb), "pci-0000:00:14.0-usb-0:2.4:1.0");
        let mmio = [("platform", ""), ("a003e00.virtio_mmio", "platform"), ("virtio3", "virtio")];
        assert_eq!(path_of(&mmio), "platform-a003e00.virtio_mmio");
        assert_eq!(path_of(&[("vif-0", "xen")]), "xen-vif-0");
        assert_eq!(path_of(&[("LNXSYSTM:00", ""), ("nameless", "")]), "");
    }

    #[test]
    fn a_link_without_hardware_has_neither() {
        assert_eq!(Hardware::read(Path::new("/nonexistent/device")), Hardware::default());
    }
}
