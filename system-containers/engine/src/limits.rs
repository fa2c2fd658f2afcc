//! Where the engine stops believing an image: every limit, with the reason for its value.
//!
//! An image is somebody else's data. These limits are far above what real images need and low enough that a hostile
//! archive costs a bounded amount of memory, disk and time. Free space is guarded separately, by [`RESERVED_BYTES`].
//!
//! What grows with an image in memory are windows and names of layers:
//!
//! | who | MiB | in all |
//! |---|---|---|
//! | the engine at work, without them | 9 | |
//! | a layer that has its turn: [`LAYER_MEMORY`] | 42 | |
//! | another layer beside it, [`SMALL_WINDOW`] and [`SMALL_NAMES`]; two are unpacked at once | 12 | 63 |
//! | the same, while an archive is imported and images are pulled | 12 | 75 |
//! | an archive by `xz -9` instead of the layer that has its turn: [`XZ_DICTIONARY_BYTES`] | 20 more | 95 |
//!
//! More archives at the same time wait for each other, but for their own compression: each has up to [`SMALL_WINDOW`]. Manifests
//! and configurations, of [`JSON_BYTES`] at most, are in memory while their images are pulled. A configuration is read when its image
//! is taken, when a container is prepared and when images are listed, one after the other in each: one of nothing but short names
//! takes some ten times its length for that moment.

/// The largest manifest, index or image configuration, in bytes. Registries accept manifests up to 4 MiB (OCI
/// distribution specification, "Pushing Manifests"), so nothing larger was ever pulled from one.
pub const JSON_BYTES: u64 = 4 << 20;

/// The most entries of an archive file. A layer or blob is one entry; docker-save's old form has four a layer.
pub const ARCHIVE_ENTRIES: u64 = 20_000;

/// The most images of one archive file.
pub const ARCHIVE_IMAGES: usize = 1_000;

/// The most volumes that an image may ask for: each is a directory and a mount of every container made of it.
pub const IMAGE_VOLUMES: usize = 1_000;

/// How deep indexes may nest. Docker and buildkit write two levels.
pub const INDEX_DEPTH: u32 = 4;

/// The most layers of one image: overlayfs takes 500 lower directories (`OVL_MAX_STACK`).
pub const LAYERS: usize = 500;

/// The most entries of one layer: their names are in memory until the last one is known. The largest public images have
/// some hundred thousand files in all.
pub const LAYER_ENTRIES: u64 = 1_000_000;

/// The most bytes that one layer may hold or its image have, 128 GiB: images with machine-learning models reach tens of GiB.
pub const LAYER_BYTES: u64 = 128 << 30;

/// The longest path in bytes: Linux's `PATH_MAX` without its final NUL.
pub const PATH_BYTES: usize = 4095;

/// The longest name of one component in bytes: `NAME_MAX` of every file system that Berth uses.
pub const NAME_BYTES: usize = 255;

/// The most components of a path. Deeper trees are found in attacks on recursive programs, not in images.
pub const PATH_DEPTH: usize = 256;

/// The largest extended header in bytes. It holds path, link and attributes of one entry; Go's archive/tar has 1 MiB.
pub const EXTENDED_HEADER_BYTES: u64 = 1 << 20;

/// The most headers of one entry, its own included. Three are usual: long name, long link, and the entry.
pub const HEADERS_OF_AN_ENTRY: u32 = 16;

/// The most bytes that may follow a layer's end mark. Writers pad to a record, 10 KiB by default; what is beyond only
/// costs time.
pub const TRAILING_BYTES: u64 = 16 << 20;

/// The most segments of a sparse file: 1 MiB of memory.
pub const SPARSE_SEGMENTS: usize = 65_536;

/// The largest window of a zstd frame, as a power of two: 32 MiB, for the engine has 64 MiB in all. `zstd -19` needs
/// 8 MiB; only `--ultra` and `--long` ask for more.
pub const ZSTD_WINDOW_LOG: u32 = 25;

/// The most bytes of memory for a layer's names and the window of its decompressor together. A million names of 16 bytes have
/// room in it, beside a window of 32 MiB still a quarter of that.
pub const LAYER_MEMORY: u64 = 42 << 20;

/// The largest window that layers have at the same time, in bytes: no level of zstd below `--ultra` has a larger one.
pub const SMALL_WINDOW: u64 = 8 << 20;

/// How many bytes for names layers have at the same time. About 100,000 names have room in it.
pub const SMALL_NAMES: u64 = 4 << 20;

/// The largest dictionary of an xz file in bytes: that of `xz -9`, 64 MiB. Only archives of images have one, and only while no
/// layer has its turn.
pub const XZ_DICTIONARY_BYTES: usize = 64 << 20;

/// How many bytes of the state partition an import never takes, so that a full disk stops images and not the
/// machine: logs, leases and the configuration still fit.
pub const RESERVED_BYTES: u64 = 32 << 20;

/// How many inodes of the state partition an import never takes.
pub const RESERVED_INODES: u64 = 256;
