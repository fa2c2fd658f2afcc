//! The machine comes up, whatever it is made of.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::machine::{Bus, Firmware};
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "boot/direct-virtio", memory: 256, run: |bench| comes_up(bench, Firmware::Direct, Bus::Virtio) },
    Case { name: "boot/direct-nvme", memory: 256, run: |bench| comes_up(bench, Firmware::Direct, Bus::Nvme) },
    Case { name: "boot/direct-ahci", memory: 256, run: |bench| comes_up(bench, Firmware::Direct, Bus::Ahci) },
    Case { name: "boot/direct-usb", memory: 256, run: |bench| comes_up(bench, Firmware::Direct, Bus::Usb) },
    Case { name: "boot/direct-scsi", memory: 256, run: |bench| comes_up(bench, Firmware::Direct, Bus::VirtioScsi) },
    Case { name: "boot/seabios-virtio", memory: 256, run: |bench| comes_up(bench, Firmware::SeaBios, Bus::Virtio) },
    Case { name: "boot/seabios-nvme", memory: 256, run: |bench| comes_up(bench, Firmware::SeaBios, Bus::Nvme) },
    Case { name: "boot/seabios-ahci", memory: 256, run: |bench| comes_up(bench, Firmware::SeaBios, Bus::Ahci) },
    Case { name: "boot/seabios-usb", memory: 256, run: |bench| comes_up(bench, Firmware::SeaBios, Bus::Usb) },
    Case { name: "boot/ovmf-virtio", memory: 256, run: |bench| comes_up(bench, Firmware::Ovmf, Bus::Virtio) },
    Case { name: "boot/ovmf-nvme", memory: 256, run: |bench| comes_up(bench, Firmware::Ovmf, Bus::Nvme) },
    Case { name: "boot/ovmf-ahci", memory: 256, run: |bench| comes_up(bench, Firmware::Ovmf, Bus::Ahci) },
    Case { name: "boot/ovmf-usb", memory: 256, run: |bench| comes_up(bench, Firmware::Ovmf, Bus::Usb) },
];

fn comes_up(bench: &Bench, firmware: Firmware, bus: Bus) -> Result<()> {
    let mut machine = bench.machine().firmware(firmware).bus(bus).start()?;
    machine.wait_until_ready()?;
    let efi = machine.guest.shell("test -d /sys/firmware/efi && echo efi || echo bios")?;
    ensure!((efi.trim() == "efi") == (firmware == Firmware::Ovmf), "the kernel was started by {efi}");
    let root = machine.guest.shell("grep ' / ' /proc/mounts")?;
    ensure!(root.contains(" erofs ro"), "the root is {root}");
    Ok(())
}
