//! The kernel: sources, the merged configuration, the build, and the cache that makes the next one take seconds.
//!
//! The build tree stays in the cache, so a changed option compiles what it touches and no more.

mod options;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{jobs, logged, output, step, tool};
use crate::digest::{self, Key};
use crate::workspace::Workspace;
use options::Options;

/// Where Debian's `linux-source-6.12` package puts its tarball.
const DEBIAN_SOURCE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// The fragments, in the order they are merged; one topic each.
const FRAGMENTS: [&str; 8] = ["base", "virtio", "containers", "network", "storage", "security", "cloud", "metal"];

/// Objects of lib/zstd that are compiled for speed, though the kernel is compiled for size (../kernel-config/base.config):
/// whatever is read of the root's programs goes through them. At -Os that takes 0.36 s more of a boot, at 4 ns an
/// instruction; at -O2 the kernel is 16 KiB larger.
const FOR_SPEED: [&str; 5] = [
    "common/entropy_common.o",
    "common/fse_decompress.o",
    "decompress/huf_decompress.o",
    "decompress/zstd_decompress.o",
    "decompress/zstd_decompress_block.o",
];

/// What a boot loader takes longer to read and a download to fetch is a defect: issue 2 allows 7 MB.
const LARGEST: u64 = 7_000_000;

/// A kernel that is ready to be put into an image.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage, which boot loaders and firmware start.
    pub image: PathBuf,
    /// The same kernel as an ELF file without symbols, which hypervisors start at its PVH entry.
    pub elf: PathBuf,
    /// Addresses and names of its functions: the image has no table of symbols, so traces are resolved with this.
    pub symbols: PathBuf,
    /// What names this build: same key, same bytes.
    pub key: String,
}

struct Source {
    location: PathBuf,
    identity: String,
}

impl Kernel {
    /// Copies it to a folder as `vmlinuz`, `vmlinux` and `System.map`.
    ///
    /// # Errors
    /// If a file cannot be copied.
    pub fn copy_to(&self, out: &Path) -> Result<()> {
        for (from, to) in [(&self.image, "vmlinuz"), (&self.elf, "vmlinux"), (&self.symbols, "System.map")] {
            fs::copy(from, out.join(to)).with_context(|| format!("copy {}", from.display()))?;
        }
        Ok(())
    }
}

/// Builds the kernel, or finds it in the cache.
///
/// # Errors
/// If there is no source, an option that was asked for is not in the final configuration, or the build fails.
pub fn build(workspace: &Workspace) -> Result<Kernel> {
    let options = read_options(workspace)?;
    let source = Source::find(workspace)?;
    let compiler = output(tool("gcc").arg("--version"))?;
    let linker = output(tool("ld").arg("--version"))?;
    let key = Key::new("kernel 3")
        .part("source", &source.identity)
        .part("for speed", FOR_SPEED.join(" "))
        .part("options", options.text())
        .part("compiler", compiler.lines().next().unwrap_or_default())
        .part("linker", linker.lines().next().unwrap_or_default())
        .finish();
    let entry = workspace.cache.entry_or("kernel", &key, |folder| compile(workspace, &source, &options, folder))?;
    Ok(Kernel { image: entry.join("vmlinuz"), elf: entry.join("vmlinux"), symbols: entry.join("System.map"), key })
}

fn read_options(workspace: &Workspace) -> Result<Options> {
    let mut options = Options::default();
    for topic in FRAGMENTS {
        let path = workspace.root.join(format!("kernel-config/{topic}.config"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        options.add(topic, &text)?;
    }
    Ok(options)
}

impl Source {
    fn find(workspace: &Workspace) -> Result<Self> {
        let location = env::var_os("BERTH_KERNEL_SOURCE").map_or_else(|| DEBIAN_SOURCE.into(), PathBuf::from);
        if location.is_dir() {
            let identity = digest::of_tree_state(&location)?;
            return Ok(Self { location, identity });
        }
        if !location.is_file() {
            bail!(
                "no kernel source at {}: run `make deps`, or name a tree or tarball in BERTH_KERNEL_SOURCE",
                location.display()
            );
        }
        let identity = workspace.cache.digest_of(&location)?;
        Ok(Self { location, identity })
    }

    /// The tree, unpacked once if the source is a tarball.
    fn tree(&self, workspace: &Workspace) -> Result<PathBuf> {
        if self.location.is_dir() {
            return Ok(self.location.canonicalize()?);
        }
        workspace.cache.entry_or("kernel-source", &self.short_identity(), |folder| {
            step(&format!("unpacking {}", self.location.display()));
            output(
                tool("tar")
                    .arg("--extract")
                    .arg("--strip-components=1")
                    .arg("-C")
                    .arg(folder)
                    .arg("-f")
                    .arg(&self.location),
            )?;
            Ok(())
        })
    }

    fn short_identity(&self) -> String {
        self.identity.chars().take(16).collect()
    }
}

fn compile(workspace: &Workspace, source: &Source, options: &Options, into: &Path) -> Result<()> {
    let tree = source.tree(workspace)?;
    let objects = workspace.cache.folder(&format!("kernel-objects/{}", source.short_identity()))?;
    configure(&tree, &objects, options)?;
    step(&format!("building the kernel with {} jobs; the first time this takes 23 minutes of processor time", jobs()));
    logged(make(&tree, &objects).arg(format!("-j{}", jobs())).arg("bzImage"), &objects.join("berth-build.log"))?;

    let image = objects.join("arch/x86/boot/bzImage");
    let size = fs::metadata(&image).with_context(|| format!("stat {}", image.display()))?.len();
    if size > LARGEST {
        bail!("the kernel is {size} bytes, more than the {LARGEST} that are allowed");
    }
    let results = [
        (image, "vmlinuz"),
        (objects.join("arch/x86/boot/compressed/vmlinux.bin"), "vmlinux"),
        (objects.join(".config"), "config"),
        (objects.join("System.map"), "System.map"),
    ];
    for (from, to) in results {
        fs::copy(&from, into.join(to)).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn configure(tree: &Path, objects: &Path, options: &Options) -> Result<()> {
    step("configuring the kernel");
    let wanted = objects.join("berth.config");
    fs::write(&wanted, options.text()).with_context(|| format!("write {}", wanted.display()))?;
    let log = objects.join("berth-configure.log");
    logged(make(tree, objects).arg("allnoconfig").env("KCONFIG_ALLCONFIG", &wanted), &log)?;
    let path = objects.join(".config");
    let result = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let missing = options.missing_from(&result);
    if !missing.is_empty() {
        bail!("the kernel's final configuration is not what was asked for:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

/// `make` with everything fixed that would otherwise get into the image: who, where and when. The kernel's makefiles read
/// an object's own flags from a variable of its name; nothing else sets those of [`FOR_SPEED`].
fn make(tree: &Path, objects: &Path) -> std::process::Command {
    let mut command = tool("make");
    command
        .arg("-C")
        .arg(tree)
        .arg(format!("O={}", objects.display()))
        .args(FOR_SPEED.map(|object| format!("CFLAGS_{object}=-O2")))
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("KBUILD_BUILD_USER", "berth")
        .env("KBUILD_BUILD_HOST", "berth")
        .env("KBUILD_BUILD_VERSION", "1");
    command
}
