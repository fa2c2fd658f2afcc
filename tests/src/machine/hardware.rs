//! The arguments of QEMU for a description.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::builder::{Builder, Bus, Cable, Firmware, Model};

/// The sockets that QEMU inherits; it accepts clients at them.
pub struct Sockets<'a> {
    pub qmp: &'a OwnedFd,
    pub agent: Option<&'a OwnedFd>,
}

/// Debian's package ovmf, the size with 4 MiB flash first, and other distributions' name for the same.
const OVMF: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// All of QEMU's arguments.
pub fn arguments(builder: &Builder, disk: &Path, sockets: &Sockets<'_>) -> Result<Vec<String>> {
    let mut arguments = Arguments::default();
    arguments.words("-nodefaults -no-user-config -display none -machine q35 -device virtio-rng-pci");
    match builder.accelerator {
        "kvm" => arguments.words("-accel kvm -cpu host"),
        // An instruction takes 4 ns of the machine's time, however long it takes the host: a kernel that calibrates its
        // timers on a busy host comes to the right result. Idle time is the host's. GRUB for BIOS does not get beyond
        // its first screen with this.
        _ if builder.processors == 1 && builder.firmware != Firmware::SeaBios => {
            arguments.words("-accel tcg,thread=single -cpu max -icount shift=2");
        }
        _ => arguments.words("-accel tcg,thread=multi -cpu max"),
    }
    arguments.pair("-m", format!("{}M", builder.memory));
    arguments.pair("-smp", builder.processors.to_string());
    arguments.words("-chardev stdio,id=console,signal=off -serial chardev:console");
    let listen =
        |name: &str, socket: &OwnedFd| format!("socket,id={name},fd={},server=on,wait=off", socket.as_raw_fd());
    arguments.pair("-chardev", listen("qmp", sockets.qmp));
    arguments.words("-mon chardev=qmp,mode=control");
    if let Some(agent) = sockets.agent {
        arguments.pair("-chardev", listen("agent", agent));
        arguments.words("-device virtio-serial-pci -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0");
    }
    if let Some(time) = &builder.clock {
        arguments.pair("-rtc", format!("base={time}"));
    }
    arguments.system_disk(builder.bus, disk, builder.read_only);
    for (number, path) in builder.other_disks.iter().enumerate() {
        arguments.drive(&format!("disk{number}"), path, false);
        arguments.pair("-device", format!("virtio-blk-pci,drive=disk{number}"));
    }
    if builder.watchdog {
        arguments.words("-device i6300esb -action watchdog=reset");
    }
    if builder.free_slot {
        arguments.words("-device pcie-root-port,id=free,chassis=1");
    }
    for (number, nic) in builder.nics.iter().enumerate() {
        // Port 0: the kernel chooses a free one when QEMU listens, and nobody can come in between.
        let forwards: String = nic.forwards.iter().map(|port| format!(",hostfwd=tcp:127.0.0.1:0-:{port}")).collect();
        let netdev = match &nic.cable {
            Cable::Router => format!("user,id=net{number}{forwards}"),
            Cable::Hub(hub) => format!("hubport,id=net{number},hubid={hub}"),
            Cable::Wire { near, far } => format!(
                "dgram,id=net{number},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                near.display(),
                far.display()
            ),
        };
        arguments.pair("-netdev", netdev);
        let model = match nic.model {
            // Without a speed 802.3ad takes no card.
            Model::Virtio if matches!(nic.cable, Cable::Wire { .. }) => "virtio-net-pci,speed=1000,duplex=full",
            Model::Virtio => "virtio-net-pci",
            Model::E1000 => "e1000",
        };
        let slot = nic.slot.map(|slot| format!(",addr={slot:#x}")).unwrap_or_default();
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={mac}")).unwrap_or_default();
        arguments.pair("-device", format!("{model},netdev=net{number},romfile={slot}{mac}"));
    }
    arguments.firmware(builder)?;
    Ok(arguments.0)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn words(&mut self, text: &str) {
        self.0.extend(text.split(' ').map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    /// What the guest writes goes to the host's page cache only: the disks are thrown away.
    fn drive(&mut self, id: &str, path: &Path, read_only: bool) {
        // QEMU's quoting of a comma in a value.
        let path = path.display().to_string().replace(',', ",,");
        let access = if read_only { ",readonly=on" } else { "" };
        self.pair("-drive", format!("if=none,id={id},format=raw,cache=unsafe,discard=unmap{access},file={path}"));
    }

    /// Index 0 is the kernel that QEMU itself starts.
    fn system_disk(&mut self, bus: Bus, path: &Path, read_only: bool) {
        self.drive("system", path, read_only);
        self.words(match bus {
            Bus::Virtio => "-device virtio-blk-pci,drive=system,bootindex=1",
            Bus::VirtioScsi => "-device virtio-scsi-pci,id=scsi -device scsi-hd,drive=system,bus=scsi.0,bootindex=1",
            Bus::Nvme => "-device nvme,serial=berth,drive=system,bootindex=1",
            Bus::Ahci => "-device ide-hd,drive=system,bus=ide.0,bootindex=1",
            Bus::Usb => "-device qemu-xhci -device usb-storage,drive=system,bootindex=1",
        });
    }

    fn firmware(&mut self, builder: &Builder) -> Result<()> {
        match builder.firmware {
            Firmware::SeaBios => {}
            Firmware::Direct => {
                let mut line = builder.artifacts.command_line.clone();
                for argument in &builder.kernel_arguments {
                    line.push(' ');
                    line.push_str(argument);
                }
                self.pair("-kernel", builder.artifacts.kernel.display().to_string());
                self.pair("-append", line);
            }
            Firmware::Ovmf => {
                let (code, variables) = ovmf()?;
                let own = builder.folder.join("ovmf-variables.fd");
                std::fs::copy(&variables, &own).context("copy the firmware's variables")?;
                self.pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", code.display()));
                self.pair("-drive", format!("if=pflash,unit=1,format=raw,file={}", own.display()));
            }
        }
        Ok(())
    }
}

fn ovmf() -> Result<(PathBuf, PathBuf)> {
    let pair = OVMF.iter().find(|(code, variables)| Path::new(code).exists() && Path::new(variables).exists());
    let (code, variables) = pair.context("there is no OVMF (Debian: ovmf)")?;
    Ok((PathBuf::from(code), PathBuf::from(variables)))
}
