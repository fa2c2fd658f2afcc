//! The description of a machine.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::hardware::{self, Sockets};
use super::{Console, Guest, Machine, Qmp};
use crate::artifacts::Artifacts;
use crate::disks::{self, Files, Format};
use crate::sys;

/// What starts the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU itself, with the command line of the disk's boot loader: the fastest.
    #[default]
    Direct,
    /// BIOS.
    SeaBios,
    /// UEFI.
    Ovmf,
}

/// How the system disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// virtio-scsi.
    VirtioScsi,
    /// NVMe.
    Nvme,
    /// AHCI, as SATA disks are.
    Ahci,
    /// A USB stick at an xHCI controller.
    Usb,
}

/// A network card.
#[derive(Clone, Debug, Default)]
pub struct Nic {
    /// Guest TCP ports that the host reaches, see [`Machine::forwarded`].
    pub forwards: Vec<u16>,
    /// Where its cable leads.
    pub cable: Cable,
    /// What it is.
    pub model: Model,
    /// Its number on the first PCI bus; the next free one if absent.
    pub slot: Option<u8>,
    /// Its address; QEMU's, the same in every machine, if absent.
    pub mac: Option<String>,
}

/// What a network card is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel's 82540EM, for the kernel's e1000.
    E1000,
}

/// Where the cable of a network card leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cable {
    /// To a network of its own, with QEMU as router, DHCP and name server.
    #[default]
    Router,
    /// To the hub with this number: the machine's other cards at it hear everything, and nobody else is there.
    Hub(u8),
    /// To another machine's card.
    Wire {
        /// The socket of this end.
        near: PathBuf,
        /// The socket of the other end.
        far: PathBuf,
    },
}

impl Nic {
    /// One at a hub.
    #[must_use]
    pub fn at_hub(number: u8) -> Self {
        Self { cable: Cable::Hub(number), ..Self::default() }
    }
}

/// A machine that is not switched on yet.
#[derive(Debug)]
pub struct Builder {
    pub(super) artifacts: Artifacts,
    pub(super) accelerator: &'static str,
    pub(super) folder: PathBuf,
    pub(super) firmware: Firmware,
    pub(super) bus: Bus,
    pub(super) system_disk: SystemDisk,
    pub(super) disk_size: Option<u64>,
    pub(super) memory: u32,
    pub(super) processors: u32,
    pub(super) nics: Vec<Nic>,
    pub(super) kernel_arguments: Vec<String>,
    pub(super) other_disks: Vec<PathBuf>,
    pub(super) guest_agent: bool,
    pub(super) free_slot: bool,
    pub(super) watchdog: bool,
    pub(super) clock: Option<String>,
    pub(super) read_only: bool,
}

/// Where the system disk comes from.
#[derive(Debug)]
pub(super) enum SystemDisk {
    /// A fresh copy of the image.
    Copy,
    /// A disk that a case prepared; used as it is.
    Existing(PathBuf),
}

impl Builder {
    /// A machine with 256 MiB, one processor, one NIC and a fresh copy of the image on virtio, whose files are in
    /// `folder`.
    #[must_use]
    pub fn new(artifacts: &Artifacts, accelerator: &'static str, folder: &Path) -> Self {
        Self {
            artifacts: artifacts.clone(),
            accelerator,
            folder: folder.to_owned(),
            firmware: Firmware::default(),
            bus: Bus::default(),
            system_disk: SystemDisk::Copy,
            disk_size: None,
            memory: 256,
            processors: 1,
            nics: vec![Nic::default()],
            kernel_arguments: Vec::new(),
            other_disks: Vec::new(),
            guest_agent: true,
            free_slot: false,
            watchdog: false,
            clock: None,
            read_only: false,
        }
    }

    /// With this firmware.
    #[must_use]
    pub fn firmware(self, firmware: Firmware) -> Self {
        Self { firmware, ..self }
    }

    /// With the system disk attached this way.
    #[must_use]
    pub fn bus(self, bus: Bus) -> Self {
        Self { bus, ..self }
    }

    /// With a system disk of this many bytes, if that is more than the image has.
    #[must_use]
    pub fn disk_size(self, bytes: u64) -> Self {
        Self { disk_size: Some(bytes), ..self }
    }

    /// With `disk` as the system disk, for instance one that an earlier machine has left.
    #[must_use]
    pub fn system_disk(self, disk: &Path) -> Self {
        Self { system_disk: SystemDisk::Existing(disk.to_owned()), ..self }
    }

    /// With this many MiB of memory.
    #[must_use]
    pub fn memory(self, mebibytes: u32) -> Self {
        Self { memory: mebibytes, ..self }
    }

    /// With this many processors.
    #[must_use]
    pub fn processors(self, processors: u32) -> Self {
        Self { processors, ..self }
    }

    /// With these NICs instead of one.
    #[must_use]
    pub fn nics(self, nics: Vec<Nic>) -> Self {
        Self { nics, ..self }
    }

    /// With a way from the host to this TCP port of the first NIC.
    #[must_use]
    pub fn forward(mut self, guest_port: u16) -> Self {
        if let Some(nic) = self.nics.first_mut() {
            nic.forwards.push(guest_port);
        }
        self
    }

    /// With more words on the kernel's command line. For [`Firmware::Direct`] only.
    #[must_use]
    pub fn kernel_arguments(mut self, arguments: &str) -> Self {
        self.kernel_arguments.push(arguments.to_owned());
        self
    }

    /// With one more disk.
    #[must_use]
    pub fn disk(mut self, path: &Path) -> Self {
        self.other_disks.push(path.to_owned());
        self
    }

    /// With a free slot for [`Machine::attach_disk`].
    #[must_use]
    pub fn with_free_slot(self) -> Self {
        Self { free_slot: true, ..self }
    }

    /// With a watchdog, which resets the machine.
    #[must_use]
    pub fn watchdog(self) -> Self {
        Self { watchdog: true, ..self }
    }

    /// With a clock that begins at this time, such as `1970-01-01T00:00:00`.
    #[must_use]
    pub fn clock(self, time: &str) -> Self {
        Self { clock: Some(time.to_owned()), ..self }
    }

    /// With a system disk that cannot be written.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Without the guest agent's port.
    #[must_use]
    pub fn without_guest_agent(self) -> Self {
        Self { guest_agent: false, ..self }
    }

    /// With a FAT disk of user data.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn user_data(self, files: &Files) -> Result<Self> {
        self.user_data_as(files, Format::Fat)
    }

    /// With a disk of user data in this format.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn user_data_as(self, files: &Files, format: Format) -> Result<Self> {
        let path = self.folder.join(format!("user-data-{}.img", self.other_disks.len()));
        disks::build(files, format, disks::LABEL, &path).context("make the user-data disk")?;
        Ok(self.disk(&path))
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// If its files cannot be made or QEMU does not start.
    pub fn start(self) -> Result<Machine> {
        let disk = match &self.system_disk {
            SystemDisk::Existing(path) => path.clone(),
            SystemDisk::Copy => {
                let path = self.folder.join("system.img");
                disks::copy_sparse(&self.artifacts.disk, &path, self.disk_size)?;
                path
            }
        };
        let listen = |name: &str| -> Result<(OwnedFd, PathBuf)> {
            let path = self.folder.join(name);
            // Left by an earlier machine of the same case, which has ended.
            if path.exists() {
                std::fs::remove_file(&path)?;
            }
            let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
            Ok((listener.into(), path))
        };
        let ((qmp_socket, qmp_path), (agent_socket, agent_path)) = (listen("qmp.sock")?, listen("agent.sock")?);
        let inherited = [qmp_socket, agent_socket];
        let [qmp_socket, agent_socket] = &inherited;
        let sockets = Sockets { qmp: qmp_socket, agent: self.guest_agent.then_some(agent_socket) };

        let mut command = Command::new("qemu-system-x86_64");
        command.args(hardware::arguments(&self, &disk, &sockets)?);
        let errors = std::fs::File::create(self.folder.join("qemu.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let started = Instant::now();
        let mut process = sys::spawn_tied(&mut command, &inherited).context("start qemu-system-x86_64")?;
        let input = process.stdin.take().context("QEMU's input")?;
        let output = process.stdout.take().context("QEMU's output")?;
        let console = Console::new(input, output, &self.folder.join("console.log"))?;
        // From here on the machine's own clean-up applies.
        let guest = Guest::new(&agent_path);
        let forwards = self.nics.iter().map(|nic| nic.forwards.clone()).collect();
        let mut machine = Machine { process, console, qmp: Qmp::new(&qmp_path), guest, disk, started, forwards };
        drop(inherited);
        let complaint = || std::fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        machine.qmp.connect().with_context(|| format!("QEMU does not start: {}", complaint().trim_end()))?;
        Ok(machine)
    }
}
