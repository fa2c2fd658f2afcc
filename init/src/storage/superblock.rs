//! What a block device holds, by its first bytes.
//!
//! Only what Berth mounts by itself is told apart; everything else that is not all zero is [`Content::Other`], and
//! nothing is ever written over that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of each end must be zero for a device to count as blank: 1 MiB covers the superblocks of the file systems,
/// RAID, LVM, LUKS and swap formats that Linux knows (btrfs's lies at 64 KiB, ZFS's labels at both ends).
const BLANK_MARGIN: u64 = 1 << 20;

/// A file system, its kernel name and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Both ends are zero.
    Blank,
    /// ext2, ext3 or ext4.
    Ext4 {
        /// At most 16 bytes.
        label: String,
        /// Whether it was unmounted in order and knows of no error.
        clean: bool,
    },
    /// FAT12, FAT16 or FAT32.
    Fat {
        /// At most 11 characters, upper case as a rule.
        label: String,
    },
    /// A CD or its image.
    Iso9660 {
        /// At most 32 characters.
        label: String,
    },
    /// Something else.
    Other,
}

impl Content {
    /// The label, where there is one.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Ext4 { label, .. } | Self::Fat { label } | Self::Iso9660 { label } => Some(label),
            Self::Blank | Self::Other => None,
        }
    }

    /// The kernel's name for it, where Berth mounts it.
    pub fn filesystem(&self) -> Option<&'static str> {
        match self {
            Self::Ext4 { .. } => Some("ext4"),
            Self::Fat { .. } => Some("vfat"),
            Self::Iso9660 { .. } => Some("iso9660"),
            Self::Blank | Self::Other => None,
        }
    }
}

/// Looks at a device or image of `size` bytes.
pub fn probe(device: &File, size: u64) -> io::Result<Content> {
    let reader = Reader { device, size };
    if let Some(content) = reader.ext4()? {
        return Ok(content);
    }
    if let Some(content) = reader.iso9660()? {
        return Ok(content);
    }
    if let Some(content) = reader.fat()? {
        return Ok(content);
    }
    let blank = reader.is_zero(0)? && reader.is_zero(size.saturating_sub(BLANK_MARGIN))?;
    Ok(if blank { Content::Blank } else { Content::Other })
}

struct Reader<'a> {
    device: &'a File,
    size: u64,
}

impl Reader<'_> {
    /// `length` bytes at `offset`; `None` if the device ends before.
    fn read(&self, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        if offset.saturating_add(length as u64) > self.size {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        self.device.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    fn is_zero(&self, offset: u64) -> io::Result<bool> {
        let length = BLANK_MARGIN.min(self.size.saturating_sub(offset)) as usize;
        Ok(self.read(offset, length)?.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)))
    }

    /// The superblock at 1024 (kernel Documentation/filesystems/ext4/globals.rst).
    fn ext4(&self) -> io::Result<Option<Content>> {
        const VALID: u16 = 1;
        const ERRORS: u16 = 2;
        const NEEDS_RECOVERY: u16 = 4; // in the low half of s_feature_incompat
        let Some(block) = self.read(1024, 1024)? else { return Ok(None) };
        if u16_at(&block, 56) != 0xef53 {
            return Ok(None);
        }
        let state = u16_at(&block, 58);
        let clean = state & VALID != 0 && state & ERRORS == 0 && u16_at(&block, 96) & NEEDS_RECOVERY == 0;
        Ok(Some(Content::Ext4 { label: text(block.get(120..136)), clean }))
    }

    /// The primary volume descriptor in sector 16 (ECMA-119, 8.4).
    fn iso9660(&self) -> io::Result<Option<Content>> {
        let Some(block) = self.read(32768, 2048)? else { return Ok(None) };
        let found = block.get(..6) == Some(b"\x01CD001");
        Ok(found.then(|| Content::Iso9660 { label: text(block.get(40..72)) }))
    }

    /// The boot sector, and the label's entry in the root directory: Windows writes the label only there
    /// (Microsoft's FAT specification 1.03, sections 3 and 6).
    fn fat(&self) -> io::Result<Option<Content>> {
        let Some(boot) = self.read(0, 512)? else { return Ok(None) };
        let sector = u64::from(u16_at(&boot, 11));
        let cluster = u64::from(byte_at(&boot, 13));
        let fats = u64::from(byte_at(&boot, 16));
        let jump = matches!(byte_at(&boot, 0), 0xeb | 0xe9);
        let plausible = jump
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && cluster.is_power_of_two()
            && matches!(fats, 1 | 2)
            && boot.get(510..512) == Some(&[0x55, 0xaa]);
        if !plausible {
            return Ok(None);
        }
        let reserved = u64::from(u16_at(&boot, 14));
        let short_length = u64::from(u16_at(&boot, 22));
        let (root, own_label) = if short_length != 0 {
            ((reserved + fats * short_length) * sector, boot.get(43..54))
        } else {
            let data = reserved + fats * u64::from(u32_at(&boot, 36));
            let first = u64::from(u32_at(&boot, 44)).saturating_sub(2);
            ((data + first * cluster) * sector, boot.get(71..82))
        };
        let label = match self.read(root, (cluster * sector) as usize)? {
            Some(directory) => fat_label(&directory),
            None => None,
        };
        let label = label.unwrap_or_else(|| text(own_label).replace("NO NAME", ""));
        Ok(Some(Content::Fat { label }))
    }
}

/// The first entry that is a volume label and neither deleted nor part of a long name.
fn fat_label(directory: &[u8]) -> Option<String> {
    let entries = directory.chunks_exact(32).take_while(|entry| byte_at(entry, 0) != 0);
    let mut labels = entries
        .filter(|entry| byte_at(entry, 0) != 0xe5 && byte_at(entry, 11) & 0x18 == 0x08 && byte_at(entry, 11) != 0x0f);
    labels.next().map(|entry| text(entry.get(..11)))
}

/// A field padded with zeros or spaces.
fn text(field: Option<&[u8]>) -> String {
    let field = field.unwrap_or_default();
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).trim_end().to_owned()
}

fn byte_at(bytes: &[u8], offset: usize) -> u8 {
    bytes.get(offset).copied().unwrap_or(0)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([byte_at(bytes, offset), byte_at(bytes, offset + 1)])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | u32::from(u16_at(bytes, offset + 2)) << 16
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// An image of 48 MiB, treated by a command of the file system's own tools.
    fn image(command: &[&str]) -> (tempfile::NamedTempFile, Content) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(48 << 20).unwrap();
        if let [program, arguments @ ..] = command {
            let output = Command::new(program).args(arguments).arg(file.path()).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let content = probe(file.as_file(), 48 << 20).unwrap();
        (file, content)
    }

    #[test]
    fn ext4_is_known_with_its_label_and_whether_it_is_clean() {
        let (file, content) = image(&["mke2fs", "-q", "-F", "-t", "ext4", "-L", "BERTH-STATE"]);
        assert_eq!(content, Content::Ext4 { label: "BERTH-STATE".into(), clean: true });
        file.as_file().write_all_at(&[0, 0], 1024 + 58).unwrap();
        assert_eq!(
            probe(file.as_file(), 48 << 20).unwrap(),
            Content::Ext4 { label: "BERTH-STATE".into(), clean: false }
        );
    }

    #[test]
    fn every_width_of_fat_is_known() {
        for (width, sectors_per_cluster) in [("12", "64"), ("16", "4"), ("32", "1")] {
            let (_file, content) = image(&["mkfs.fat", "-F", width, "-s", sectors_per_cluster, "-n", "BERTH-DATA"]);
            assert_eq!(content, Content::Fat { label: "BERTH-DATA".into() }, "FAT{width}");
        }
    }

    #[test]
    fn a_fat_label_in_the_root_directory_alone_counts() {
        let (file, _) = image(&["mkfs.fat", "-F", "16", "-n", "BERTH-DATA"]);
        file.as_file().write_all_at(b"NO NAME    ", 43).unwrap();
        assert_eq!(probe(file.as_file(), 48 << 20).unwrap(), Content::Fat { label: "BERTH-DATA".into() });
    }

    #[test]
    fn blank_means_blank_at_both_ends() {
        let (file, content) = image(&[]);
        assert_eq!(content, Content::Blank);
        file.as_file().write_all_at(b"x", (48 << 20) - 1).unwrap();
        assert_eq!(probe(file.as_file(), 48 << 20).unwrap(), Content::Other);
    }

    #[test]
    fn another_format_is_not_blank() {
        let (_file, content) = image(&["mkswap", "-q"]);
        assert_eq!(content, Content::Other);
    }

    #[test]
    fn a_device_that_is_too_small_for_anything_is_not_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(probe(file.as_file(), 0).unwrap(), Content::Blank);
    }
}
