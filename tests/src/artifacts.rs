//! What the build left in `out/`.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use berth_image_build::workspace::Workspace;
use berth_image_build::{qemu, userland};
use gptman::GPT;

/// The files that cases boot.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The raw GPT disk.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The folder of both; failed cases leave their logs in it.
    pub out: PathBuf,
    /// The image's own busybox, static, for the images of containers.
    pub busybox: PathBuf,
    /// The kernel's command line for slot a as the disk's boot loader has it.
    pub command_line: String,
}

impl Artifacts {
    /// Finds them in `BERTH_OUT`, or in `out/` of this checkout.
    ///
    /// # Errors
    /// If one is missing: `make image` was not run.
    pub fn find(workspace: &Workspace) -> Result<Self> {
        let out = std::env::var_os("BERTH_OUT").map_or_else(|| workspace.root.join("out"), PathBuf::from);
        let (disk, kernel) = (out.join("berth.img"), out.join("vmlinuz"));
        for file in [&disk, &kernel] {
            if !file.is_file() {
                bail!("{} is missing: run `make image`", file.display());
            }
        }
        let command_line = command_line(&disk)?;
        let busybox = userland::build(workspace)?.busybox;
        Ok(Self { disk, kernel, out, busybox, command_line })
    }
}

/// What runs the machines: what `BERTH_ACCELERATOR` says, or KVM where it was tried and boots this kernel, or TCG.
///
/// # Errors
/// If the variable names neither, or KVM cannot be tried.
pub fn accelerator(workspace: &Workspace) -> Result<&'static str> {
    match std::env::var("BERTH_ACCELERATOR").as_deref() {
        Ok("kvm") => Ok("kvm"),
        Ok("tcg") => Ok("tcg"),
        Ok(other) => bail!("BERTH_ACCELERATOR is {other:?}, not kvm or tcg"),
        Err(_) => qemu::accelerator(workspace),
    }
}

/// The folder of the workspace.
#[must_use]
pub fn repository() -> &'static Path {
    // This crate is built where it lies.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The words behind the kernel's name in the first entry of the disk's grub.cfg, which is slot a's.
fn command_line(disk: &Path) -> Result<String> {
    let mut file = File::open(disk).with_context(|| format!("open {}", disk.display()))?;
    let table = GPT::find_from(&mut file).with_context(|| format!("read the partitions of {}", disk.display()))?;
    let boot = table.iter().find(|(_, partition)| partition.partition_name.as_str() == "berth-boot");
    let (_, boot) = boot.context("the disk has no partition berth-boot")?;
    file.seek(SeekFrom::Start(boot.starting_lba * table.sector_size))?;
    let mut volume = Vec::new();
    file.take(boot.size()? * table.sector_size).read_to_end(&mut volume)?;
    let volume = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new())?;
    let mut configuration = String::new();
    volume.root_dir().open_file("grub/grub.cfg")?.read_to_string(&mut configuration)?;
    let arguments = configuration.lines().find_map(|line| line.trim().strip_prefix("linux /vmlinuz-a "));
    Ok(arguments.context("grub.cfg has no entry of slot a")?.to_owned())
}
