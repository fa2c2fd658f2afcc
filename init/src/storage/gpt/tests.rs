use std::process::Command;

use super::*;

const MIB: u64 = 1 << 20;

/// A disk of 64 MiB with two partitions, made by sfdisk.
fn disk() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 * MIB).unwrap();
    let script =
        "label: gpt\nsize=8MiB, type=U\nsize=16MiB, type=62657274-682d-4f53-8a53-544154450001, name=BERTH-STATE\n";
    sfdisk(&file, &[], script);
    file
}

fn sfdisk(file: &tempfile::NamedTempFile, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new("sfdisk")
        .args(arguments)
        .arg(file.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sfdisk: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_table_of_sfdisk_is_read() {
    let file = disk();
    let gpt = Gpt::read(file.as_file(), 512, 64 * MIB).unwrap();
    assert_eq!(gpt.type_of(2).unwrap(), "62657274-682d-4f53-8a53-544154450001");
    assert_eq!(gpt.extent(2).unwrap(), Extent { start: 9 * MIB, length: 16 * MIB });
    assert_eq!(gpt.type_of(3), None);
}

#[test]
fn a_grown_table_satisfies_sfdisk() {
    let file = disk();
    let mut gpt = Gpt::read(file.as_file(), 512, 64 * MIB).unwrap();
    file.as_file().set_len(256 * MIB).unwrap();
    assert!(gpt.grow(2, 256 * MIB).unwrap());
    gpt.write(file.as_file(), 256 * MIB).unwrap();
    let said = sfdisk(&file, &["--verify"], "");
    assert!(said.contains("No errors detected"), "{said}");
    let gpt = Gpt::read(file.as_file(), 512, 256 * MIB).unwrap();
    assert_eq!(gpt.extent(2).unwrap(), Extent { start: 9 * MIB, length: 246 * MIB });
    assert!(!gpt.clone().grow(2, 256 * MIB).unwrap(), "a second time changes nothing");
}

#[test]
fn the_backup_serves_when_the_primary_is_damaged() {
    let file = disk();
    file.as_file().write_all_at(&[0; 512], 512).unwrap();
    assert!(Gpt::read(file.as_file(), 512, 64 * MIB).unwrap().extent(2).is_some());
    file.as_file().write_all_at(&[0; 512], 64 * MIB - 512).unwrap();
    assert!(matches!(Gpt::read(file.as_file(), 512, 64 * MIB), Err(GptError::Invalid)));
}

#[test]
fn a_power_cut_between_the_copies_leaves_a_table() {
    let file = disk();
    let mut gpt = Gpt::read(file.as_file(), 512, 64 * MIB).unwrap();
    file.as_file().set_len(256 * MIB).unwrap();
    gpt.grow(2, 256 * MIB).unwrap();
    gpt.write(file.as_file(), 256 * MIB).unwrap();
    // The cut: the primary's entries are written, its header is not.
    file.as_file().write_all_at(&[0xff; 16], 512).unwrap();
    assert_eq!(Gpt::read(file.as_file(), 512, 256 * MIB).unwrap().extent(2).unwrap().length, 246 * MIB);
}

#[test]
fn only_the_last_partition_grows_and_never_on_a_shrunk_disk() {
    let file = disk();
    let mut gpt = Gpt::read(file.as_file(), 512, 64 * MIB).unwrap();
    assert!(matches!(gpt.grow(1, 256 * MIB), Err(GptError::NotLast { number: 1 })));
    assert!(matches!(gpt.grow(7, 256 * MIB), Err(GptError::NoPartition { number: 7 })));
    assert!(!gpt.grow(2, 20 * MIB).unwrap());
}

proptest::proptest! {
    /// Random values in the header and the entries, with checksums that fit them.
    #[test]
    fn no_nonsense_in_a_table_is_a_panic(position in 24_usize..17 * 1024, bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..32)) {
        static TABLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let mut table = vec![0; 34 * 512];
            disk().as_file().read_exact_at(&mut table, 0).unwrap();
            table
        });
        let mut table = TABLE.clone();
        put(&mut table, 512 + position, &bytes);
        let entries = crc32(&table[1024..]);
        put(&mut table, 512 + 88, &entries.to_le_bytes());
        put(&mut table, 512 + 16, &[0; 4]);
        let header = crc32(&table[512..512 + HEADER]);
        put(&mut table, 512 + 16, &header.to_le_bytes());
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(&table, 0).unwrap();
        if let Ok(mut gpt) = Gpt::read(&file, 512, 64 * MIB) {
            let _ = gpt.grow(2, 256 * MIB);
        }
    }
}
