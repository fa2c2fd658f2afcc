//! The disk image: a GPT with the boot partition, GRUB's core for BIOS, two slots of the root and the state.
//!
//! ```text
//! LBA 0        protective MBR with GRUB's first 440 bytes
//! LBA 34       2  GRUB's core (BIOS boot)
//! 1 MiB        1  boot: EFI system partition, FAT16: kernels, GRUB for UEFI, grub.cfg, grubenv
//! 65 MiB       3  berth-root-a
//! 129 MiB      4  berth-root-b, empty until an update
//! 193 MiB      5  BERTH-STATE, zeros: PID 1 formats a blank one, and grows it to the end of the disk
//! ```
//!
//! Every identifier follows from the content, so the same parts give the same bytes.

use std::fs::{self, File};
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gptman::{GPT, GPTPartitionEntry};

use crate::digest::{self, Key};
use crate::fat::{self, Volume};
use crate::grub;
use crate::root::Root;
use crate::workspace::Workspace;

/// Bytes of a logical sector of this image.
const SECTOR: u64 = 512;
/// Bytes of what partitions are aligned to.
const MIB: u64 = 1 << 20;
/// Where GRUB's core lies: after the partition table, before the first aligned partition.
const CORE_START: u64 = 34;
/// Room for a kernel in each slot, and for one that is being written.
const BOOT_SIZE: u64 = 64 * MIB;
/// At 4 KiB GRUB follows a chain of 1,500 clusters to a kernel. FAT32 on so small a partition would need clusters of one
/// sector, and a second more to load the kernel from under emulation.
const BOOT_CLUSTER: u32 = 4096;
/// Room for a root of each slot to grow tenfold.
const ROOT_SIZE: u64 = 64 * MIB;
/// The least that holds an ext4 journal and the demo; a real disk's rest is added at first boot.
const STATE_SIZE: u64 = 64 * MIB;

/// Partition types, from the UEFI specification, GRUB, the Discoverable Partitions Specification and DESIGN.md.
const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
const ROOT_X86_64: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const STATE: &str = "62657274-682d-4f53-8a53-544154450001";

/// Number, name, type, first byte, size.
const PARTITIONS: [(u32, &str, &str, u64, u64); 5] = [
    (1, "berth-boot", EFI_SYSTEM, MIB, BOOT_SIZE),
    (2, "berth-grub", BIOS_BOOT, CORE_START * SECTOR, MIB - CORE_START * SECTOR),
    (3, "berth-root-a", ROOT_X86_64, MIB + BOOT_SIZE, ROOT_SIZE),
    (4, "berth-root-b", ROOT_X86_64, MIB + BOOT_SIZE + ROOT_SIZE, ROOT_SIZE),
    (5, "BERTH-STATE", STATE, MIB + BOOT_SIZE + 2 * ROOT_SIZE, STATE_SIZE),
];

/// The partitions and room for the second partition table.
const DISK_SIZE: u64 = MIB + BOOT_SIZE + 2 * ROOT_SIZE + STATE_SIZE + MIB;

/// Assembles the disk from a kernel and a root.
///
/// # Errors
/// If a part does not fit, GRUB is not installed, or the image cannot be written.
pub fn build(workspace: &Workspace, kernel: &Path, root: &Root, image: &Path) -> Result<()> {
    let kernel = fs::read(kernel).with_context(|| format!("read {}", kernel.display()))?;
    let content = fs::read(&root.image).with_context(|| format!("read {}", root.image.display()))?;
    ensure!(content.len() as u64 <= ROOT_SIZE, "the root is {} bytes, its slot has {ROOT_SIZE}", content.len());
    // The identifiers of this build's disk: from what is on it.
    let key = Key::new("disk").part("kernel", digest::of_bytes(&kernel)).part("root", &root.digest);

    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(image)?;
    file.set_len(DISK_SIZE).with_context(|| format!("size {}", image.display()))?;
    let loader = grub::build(CORE_START, image.parent().unwrap_or(Path::new(".")))?;
    ensure!(loader.core.len() as u64 <= MIB - CORE_START * SECTOR, "GRUB's core is {} bytes", loader.core.len());
    write_partition_table(&mut file, &key)?;
    write_at(&mut file, 0, &loader.boot_code)?;
    write_at(&mut file, CORE_START * SECTOR, &loader.core)?;

    let boot = boot_partition(workspace, &key, &kernel, &loader.efi)?;
    write_sparse(&mut file, MIB, &boot)?;
    write_at(&mut file, MIB + BOOT_SIZE, &content)?;
    file.sync_all().with_context(|| format!("write {}", image.display()))
}

/// The PARTUUID of a partition, for the kernel command line.
fn unique_id(key: &Key, name: &str) -> [u8; 16] {
    key.clone().part("partition", name).uuid()
}

fn write_partition_table(file: &mut File, key: &Key) -> Result<()> {
    let disk = on_disk(key.clone().part("disk", "").uuid());
    let mut table = GPT::new_from(file, SECTOR, disk).context("make a partition table")?;
    for (number, name, kind, start, size) in PARTITIONS {
        table[number] = GPTPartitionEntry {
            partition_type_guid: on_disk(parse_uuid(kind)?),
            unique_partition_guid: on_disk(unique_id(key, name)),
            starting_lba: start / SECTOR,
            ending_lba: (start + size) / SECTOR - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    }
    // GRUB's boot sector is code, which old BIOSes want to see announced by an active partition.
    GPT::write_bootable_protective_mbr_into(file, SECTOR).context("write the protective MBR")?;
    table.write_into(file).context("write the partition table")?;
    Ok(())
}

fn boot_partition(workspace: &Workspace, key: &Key, kernel: &[u8], efi: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(BOOT_SIZE)?];
    let serial = u32::from_le_bytes(unique_id(key, "boot serial")[..4].try_into()?);
    let volume = Volume { label: "BERTH-BOOT", serial, cluster: Some(BOOT_CLUSTER), size: BOOT_SIZE };
    let volume = fat::format(Cursor::new(&mut bytes[..]), volume)?;
    for folder in ["EFI", "EFI/BOOT", "grub"] {
        volume.root_dir().create_dir(folder).with_context(|| format!("make {folder}"))?;
    }
    let root = |name| digest::uuid_text(&unique_id(key, name));
    let configuration = grub::configuration(workspace, &root("berth-root-a"), &root("berth-root-b"))?;
    fat::write(&volume, "EFI/BOOT/BOOTX64.EFI", efi)?;
    fat::write(&volume, "grub/grub.cfg", configuration.as_bytes())?;
    fat::write(&volume, "grub/grubenv", &grub::environment(&[("slot", "a"), ("trial", ""), ("tries", "0")]))?;
    fat::write(&volume, "vmlinuz-a", kernel)?;
    volume.unmount().context("finish the boot partition")?;
    Ok(bytes)
}

fn write_at(file: &mut File, offset: u64, content: &[u8]) -> Result<()> {
    file.seek(SeekFrom::Start(offset)).context("seek in the disk image")?;
    file.write_all(content).context("write the disk image")
}

/// Leaves zeros unwritten: they are holes already.
fn write_sparse(file: &mut File, offset: u64, content: &[u8]) -> Result<()> {
    let mut at = offset;
    for block in content.chunks(65_536) {
        if block.iter().any(|&byte| byte != 0) {
            write_at(file, at, block)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

/// GPT stores the first three fields of a UUID little-endian.
fn on_disk(mut uuid: [u8; 16]) -> [u8; 16] {
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    uuid
}

fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let digits = text.replace('-', "");
    let value = u128::from_str_radix(&digits, 16).with_context(|| format!("parse the UUID {text}"))?;
    Ok(value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_aligned_and_do_not_overlap() {
        let mut ranges: Vec<(u64, u64)> = PARTITIONS.iter().map(|&(.., start, size)| (start, start + size)).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
        // Room for the second header and its 32 sectors of entries.
        assert!(ranges.last().unwrap().1 + 33 * SECTOR <= DISK_SIZE);
        assert!(ranges[1..].iter().all(|(start, _)| start % MIB == 0));
    }

    #[test]
    fn a_type_is_stored_in_mixed_byte_order() {
        let stored = on_disk(parse_uuid(EFI_SYSTEM).unwrap());
        assert_eq!(digest::hex(&stored), "28732ac11ff8d211ba4b00a0c93ec93b");
    }

    #[test]
    fn both_tables_are_there_and_follow_from_the_key() {
        let table_of = |content: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.set_len(DISK_SIZE).unwrap();
            write_partition_table(&mut file, &Key::new("test").part("content", content)).unwrap();
            let table = GPT::find_from(&mut file).unwrap();
            file.seek(SeekFrom::Start(DISK_SIZE - SECTOR)).unwrap();
            let backup = gptman::GPTHeader::read_from(&mut file).unwrap();
            assert_eq!((backup.primary_lba, backup.disk_guid), (DISK_SIZE / SECTOR - 1, table.header.disk_guid));
            table
        };
        let (first, again, other) = (table_of("1"), table_of("1"), table_of("2"));
        let identifiers = |table: &GPT| table.iter().map(|(_, entry)| entry.unique_partition_guid).collect::<Vec<_>>();
        assert_eq!(identifiers(&first), identifiers(&again));
        assert!(identifiers(&first).iter().zip(identifiers(&other)).all(|(one, two)| *one == [0; 16] || *one != two));
        let names: Vec<&str> = first.iter().map(|(_, entry)| entry.partition_name.as_str()).collect();
        assert_eq!(names[..5], ["berth-boot", "berth-grub", "berth-root-a", "berth-root-b", "BERTH-STATE"]);
    }
}
