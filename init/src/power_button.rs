//! The machine's power button: an input device of the kernel (ACPI, or a hypervisor's "shut down").

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_CLOEXEC, O_NONBLOCK};

/// `struct input_event` on 64-bit machines: a time of 16 bytes, then type, code and value (linux/input.h).
const EVENT_LENGTH: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// What ACPI calls its button; the fixed one and the one in the namespace have the same name.
const NAME: &str = "Power Button";

/// An open button.
#[derive(Debug)]
pub struct PowerButton {
    events: File,
}

impl PowerButton {
    /// Every power button that the machine has.
    pub fn find() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/sys/class/input") else { return Vec::new() };
        entries.flatten().filter_map(|entry| Self::open(&entry.path())).collect()
    }

    fn open(device: &Path) -> Option<Self> {
        let node = device.file_name()?.to_str()?;
        let name = fs::read_to_string(device.join("device/name")).ok()?;
        if !node.starts_with("event") || name.trim() != NAME {
            return None;
        }
        let flags = O_NONBLOCK | O_CLOEXEC;
        let events = OpenOptions::new().read(true).custom_flags(flags).open(Path::new("/dev/input").join(node)).ok()?;
        Some(Self { events })
    }

    /// Whether it has been pressed since the last call.
    pub fn was_pressed(&self) -> bool {
        let mut buffer = [0; EVENT_LENGTH * 64];
        let mut pressed = false;
        while let Ok(length @ 1..) = (&self.events).read(&mut buffer) {
            pressed |= buffer.chunks_exact(EVENT_LENGTH).take(length / EVENT_LENGTH).any(is_press);
        }
        pressed
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn is_press(event: &[u8]) -> bool {
    let field = |offset| match event.get(offset..offset + 2) {
        Some([low, high]) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    field(16) == EV_KEY && field(18) == KEY_POWER && field(20) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: u32) -> Vec<u8> {
        let mut bytes = vec![7; 16];
        bytes.extend(kind.to_le_bytes());
        bytes.extend(code.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    #[test]
    fn only_pressing_the_power_key_counts() {
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)), "letting go");
        assert!(!is_press(&event(EV_KEY, 30, 1)), "another key");
        assert!(!is_press(&event(0, KEY_POWER, 1)), "another type");
        assert!(!is_press(&[]));
    }
}
