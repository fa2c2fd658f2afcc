//! Makes archives and images for the tests, good ones and bad ones.
#![allow(dead_code, reason = "every test file uses a part of it")]

pub mod client;
pub mod init;
pub mod peer;
pub mod registry;
pub mod signing;
pub mod tls;
pub mod tree;
pub mod umoci;
pub mod uploads;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use berth_engine::digest::Digest;
use berth_engine::layer::{self, Lower, Target};
use berth_engine::memory::Memory;
use berth_engine::merged::Merged;
use berth_engine::room::Room;
use berth_engine::store::Store;
use berth_tests::archive::compressed_by;
pub use berth_tests::skips::skip;

/// Writes tar archives byte by byte, so that tests can write what no tool would.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// The fields of a header; `Default` is a file `x` of root with mode 644.
#[derive(Clone)]
pub struct Header<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: u64,
    pub device: (u32, u32),
    /// The size that the header claims; that of the data if none.
    pub size: Option<u64>,
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self {
            kind: b'0',
            name: b"x",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            time: 1_000_000_000,
            device: (0, 0),
            size: None,
        }
    }
}

impl Tar {
    pub fn entry(mut self, header: &Header<'_>, data: &[u8]) -> Self {
        let mut block = [0_u8; 512];
        let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, header.name);
        put(100, format!("{:07o}\0", header.mode).as_bytes());
        put(108, format!("{:07o}\0", header.uid).as_bytes());
        put(116, format!("{:07o}\0", header.gid).as_bytes());
        put(124, format!("{:011o}\0", header.size.unwrap_or(data.len() as u64)).as_bytes());
        put(136, format!("{:011o}\0", header.time).as_bytes());
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, header.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", header.device.0).as_bytes());
        put(337, format!("{:07o}\0", header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self.data(data)
    }

    /// Data as it follows a header, padded.
    pub fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(&Header { name: name.as_bytes(), ..Header::default() }, content)
    }

    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(&Header { kind: b'5', name: name.as_bytes(), mode, ..Header::default() }, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        let header =
            Header { kind: b'2', name: name.as_bytes(), link: target.as_bytes(), mode: 0o777, ..Header::default() };
        self.entry(&header, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(&Header { kind: b'1', name: name.as_bytes(), link: target.as_bytes(), ..Header::default() }, b"")
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let content = key.len() + value.len() + 3;
            let digits = (1..8).find(|digits| (content + digits).to_string().len() == *digits).unwrap();
            data.extend(format!("{} {key}=", content + digits).bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(&Header { kind: b'x', name: b"pax", ..Header::default() }, &data)
    }

    /// The archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// The archive cut off where it is.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// The content of a file of a layer.
pub fn content(store: &Store, layer: Digest, path: &str) -> Vec<u8> {
    store.merged(&[layer]).unwrap().read(path, u64::MAX).unwrap().expect("it is in the layer")
}

/// A layer's image at a path, looked into.
pub fn merged(path: &Path, tar: &[u8]) -> Merged {
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let place = std::fs::File::open(path).unwrap();
    let place = std::os::fd::AsFd::as_fd(&place);
    let memory = Memory::new(&|| Ok(()));
    let target = Target { file, place, uuid: Digest::of(tar).half(), memory: &memory };
    let none = || Ok(Merged::new(Vec::new())?);
    layer::unpack(tar, target, &Lower::new(&none), Room::default()).unwrap();
    Merged::new(vec![(path.to_owned(), std::fs::File::open(path).unwrap())]).unwrap()
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    /// As containers/storage writes it.
    Chunked,
}

pub fn compress(method: Method, bytes: &[u8]) -> Vec<u8> {
    match method {
        Method::Plain => bytes.to_vec(),
        Method::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Method::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        Method::Chunked => chunked(bytes),
        Method::Xz => compressed_by("xz", bytes).unwrap(),
        Method::Bzip2 => compressed_by("bzip2", bytes).unwrap(),
    }
}

/// What a zstd decoder passes over (RFC 8878, section 3.1.2).
pub fn skippable(content: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &(content.len() as u32).to_le_bytes(), content].concat()
}

/// zstd:chunked: a frame for each piece of a file, behind the last one a list of the pieces and an end mark in skippable
/// frames. One frame more stands before the first, as pzstd writes it, and one between two.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut blob = skippable(b"pzst");
    for (number, piece) in bytes.chunks(10_000).enumerate() {
        blob.extend(zstd::encode_all(piece, 3).unwrap());
        if number == 0 {
            blob.extend(skippable(b""));
        }
    }
    // The list is as long as it may be, so that it does not come with the last frame.
    let list = zstd::encode_all(&br#"{"version":1,"entries":[]}"#[..], 3).unwrap();
    blob.extend(skippable(&[list, vec![0x28; 300_000]].concat()));
    blob.extend(skippable(&[&[0; 32][..], b"GnUlInUx"].concat()));
    blob
}

/// An image to be put into an archive.
pub struct Image {
    pub name: String,
    pub layers: Vec<(Method, Vec<u8>)>,
    /// The `config` object of its configuration.
    pub process: String,
}

impl Image {
    pub fn new(name: &str, layers: Vec<Vec<u8>>) -> Self {
        let layers = layers.into_iter().map(|layer| (Method::Plain, layer)).collect();
        Self { name: name.to_owned(), layers, process: r#"{"Cmd":["/bin/true"]}"#.to_owned() }
    }

    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|(_, layer)| format!("\"{}\"", Digest::of(layer))).collect();
        format!(
            r#"{{"architecture":"{}","os":"linux","config":{},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            berth_engine::oci::ARCHITECTURE,
            self.process,
            diff_ids.join(",")
        )
        .into_bytes()
    }
}

pub fn descriptor(kind: &str, blob: &[u8], more: &str) -> String {
    let (digest, size) = (Digest::of(blob), blob.len());
    format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}{more}}}"#)
}

/// An archive with an OCI layout of these images.
pub fn oci_archive(images: &[Image]) -> Vec<u8> {
    let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut manifests = Vec::new();
    for image in images {
        let config = image.config();
        let mut layers = Vec::new();
        for (method, layer) in &image.layers {
            let blob = compress(*method, layer);
            layers.push(descriptor("layer.v1.tar", &blob, ""));
            tar = tar.file(&blob_name(&blob), &blob);
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("config.v1+json", &config, ""),
            layers.join(",")
        );
        let name = format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{}"}}"#, image.name);
        manifests.push(descriptor("manifest.v1+json", manifest.as_bytes(), &name));
        tar = tar.file(&blob_name(&config), &config).file(&blob_name(manifest.as_bytes()), manifest.as_bytes());
    }
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
    tar.file("index.json", index.as_bytes()).finish()
}

/// An archive as `docker save` wrote it before version 25.
pub fn docker_archive(images: &[Image]) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut entries = Vec::new();
    for image in images {
        let config = image.config();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let mut names = Vec::new();
        for (number, (method, layer)) in image.layers.iter().enumerate() {
            let name = format!("{}{number}/layer.tar", image.name.replace(['/', ':'], "-"));
            tar = tar.file(&name, &compress(*method, layer));
            names.push(format!("\"{name}\""));
        }
        tar = tar.file(&config_name, &config);
        entries.push(format!(
            r#"{{"Config":"{config_name}","RepoTags":["{}"],"Layers":[{}]}}"#,
            image.name,
            names.join(",")
        ));
    }
    tar.file("manifest.json", format!("[{}]", entries.join(",")).as_bytes()).finish()
}

pub fn blob_name(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(blob).hex())
}

/// A state directory and a user-data directory of one test.
pub struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    /// None without root, which unpacking needs; says so past the test harness's capture.
    pub fn new() -> Option<Self> {
        if !is_root() {
            skip("it needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("user-data/images")).unwrap();
        Some(Self { directory })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn archive(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path("user-data/images").join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn store(&self) -> berth_engine::store::Store {
        berth_engine::store::Store::open(&self.path("images"), "this boot").unwrap()
    }

    /// Imports one archive; its problems.
    pub fn import(&self, store: &berth_engine::store::Store, path: &Path) -> Vec<String> {
        let name = path.file_name().unwrap().to_str().unwrap();
        let identity = berth_engine::archive::identity(path).unwrap();
        let report = berth_engine::import::archive(store, path, name, identity);
        store.record_archive(name, report.record);
        report.problems
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The example program, which cargo builds beside the tests.
pub fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent()?.parent()?.join("examples/berth-engine");
    program.exists().then_some(program)
}
