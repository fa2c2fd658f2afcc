//! Archives of images: whatever the file is, its contents are verified documents and layers that lie within it.
#![no_main]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::LazyLock;

use berth_engine::archive::Archive;
use berth_engine::digest::Digest;
use berth_engine::room::Room;
use libfuzzer_sys::fuzz_target;

static SPOOL: LazyLock<File> = LazyLock::new(|| File::open("/dev/shm").expect("a directory in memory"));

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    file.write_all(bytes).expect("it fits");
    let Ok(archive) = Archive::open(file, "web.tar.gz", SPOOL.as_fd(), Room::default()) else { return };
    let Ok(contents) = archive.contents() else { return };
    for image in contents.images {
        let config = archive.config(&image).expect("it was read");
        assert_eq!(Digest::of(&config), image.config_digest);
        let manifest = archive.manifest(&image).expect("it was read");
        assert!(manifest.is_none_or(|manifest| Digest::of(&manifest) == image.digest));
        for layer in &image.layers {
            let mut stream = archive.stream(layer).expect("it was there");
            let (length, mut data) = (stream.remaining(), Vec::new());
            stream.read_to_end(&mut data).expect("it lies within the archive");
            assert_eq!(data.len() as u64, length);
        }
    }
});
