//! GRUB for both firmwares from Debian's module files: what grub-install does, into bytes instead of onto a device.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{output, tool};
use crate::workspace::Workspace;

/// Bytes of a sector, as BIOS disk services count.
const SECTOR: usize = 512;

/// Code of the MBR ends where the disk signature begins.
const BOOT_CODE: usize = 0x1b8;

/// In boot.img, the sector of core.img (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;

/// In boot.img, a jump that two NOPs replace on hard disks: some BIOSes pass a wrong drive number
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;

/// At the end of core.img's first sector, where its second sector is; length and address are filled in by grub-mkimage.
const BLOCK_LIST: usize = SECTOR - 12;

/// Modules of both: partitions and FAT, the menu, the environment block, the terminals.
const MODULES: [&str; 17] = [
    "configfile",
    "echo",
    "fat",
    "halt",
    "linux",
    "loadenv",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "probe",
    "reboot",
    "search",
    "serial",
    "sleep",
    "test",
    "cat",
];

/// What the kernel is told beside root and slot. A root on USB may need half a minute to appear; the serial console is
/// the last and so the main one. Drivers that make links nobody asked for make none. The test of the timer interrupt
/// counts ticks, and fails in an emulator that gets no processor time for a moment.
const COMMAND_LINE: &str = "rootfstype=erofs ro rootwait=30 panic=10 quiet no_timer_check \
    bonding.max_bonds=0 dummy.numdummies=0 ifb.numifbs=0 fb_tunnels=none console=tty0 console=ttyS0,115200";

/// The environment block has a fixed size, so that GRUB can write it in place.
const ENVIRONMENT_SIZE: usize = 1024;

/// The boot loader in pieces.
#[derive(Debug)]
pub struct BootLoader {
    /// Code for the first sector, up to the disk signature.
    pub boot_code: [u8; BOOT_CODE],
    /// What goes to the start of the BIOS boot partition.
    pub core: Vec<u8>,
    /// EFI/BOOT/BOOTX64.EFI.
    pub efi: Vec<u8>,
}

/// Makes both boot loaders; BIOS's knows that its core lies at `core_sector`.
///
/// # Errors
/// If GRUB's files are not installed or grub-mkimage fails.
pub fn build(core_sector: u64, scratch: &Path) -> Result<BootLoader> {
    let mut core = make_image("i386-pc", "(,gpt1)/grub", &["biosdisk"], scratch)?;
    ensure!(core.len() > SECTOR, "grub-mkimage made a core of {} bytes", core.len());
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(core_sector + 1).to_le_bytes());

    let path = Path::new("/usr/lib/grub/i386-pc/boot.img");
    let boot = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let Some(code) = boot.first_chunk::<BOOT_CODE>() else { bail!("{} is too short", path.display()) };
    let mut boot_code = *code;
    boot_code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_sector.to_le_bytes());
    boot_code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);

    let efi = make_image("x86_64-efi", "/grub", &["efi_gop", "efifwsetup"], scratch)?;
    Ok(BootLoader { boot_code, core, efi })
}

fn make_image(format: &str, prefix: &str, more: &[&str], scratch: &Path) -> Result<Vec<u8>> {
    let image = scratch.join(format!("grub-{format}"));
    let mut command = tool("grub-mkimage");
    command.args(["--format", format, "--prefix", prefix, "--output"]).arg(&image).args(MODULES).args(more);
    output(&mut command)?;
    let content = fs::read(&image).with_context(|| format!("read {}", image.display()))?;
    fs::remove_file(&image).with_context(|| format!("remove {}", image.display()))?;
    Ok(content)
}

/// grub.cfg for the two slots, by the PARTUUIDs of their roots.
///
/// # Errors
/// If the template cannot be read.
pub fn configuration(workspace: &Workspace, root_a: &str, root_b: &str) -> Result<String> {
    let path = workspace.root.join("image-build/grub/grub.cfg");
    let template = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let text = template.replace("@ROOT_A@", root_a).replace("@ROOT_B@", root_b);
    Ok(text.replace("@COMMAND_LINE@", COMMAND_LINE))
}

/// grubenv(5) with these variables.
pub fn environment(variables: &[(&str, &str)]) -> Vec<u8> {
    let mut block = b"# GRUB Environment Block\n".to_vec();
    for (name, value) in variables {
        block.extend_from_slice(format!("{name}={value}\n").as_bytes());
    }
    block.resize(ENVIRONMENT_SIZE, b'#');
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_size_that_grub_writes_in_place() {
        let block = environment(&[("slot", "a")]);
        assert_eq!(block.len(), 1024);
        assert!(block.starts_with(b"# GRUB Environment Block\nslot=a\n#"));
    }
}
