//! The two C programs of the image, from Debian's sources, static against musl: busybox, and e2fsprogs' mke2fs and
//! e2fsck.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{jobs, logged, output, step, tool};
use crate::digest::Key;
use crate::source::{self, SourcePackage};
use crate::workspace::Workspace;

/// Small before fast; tables for unwinding C are dead weight.
const C_FLAGS: &str = "-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables";

/// Kernel interfaces that musl does not ship, and where Debian's linux-libc-dev has them.
const KERNEL_HEADERS: [(&str, &str); 4] = [
    ("linux", "/usr/include/linux"),
    ("asm", "/usr/include/x86_64-linux-gnu/asm"),
    ("asm-generic", "/usr/include/asm-generic"),
    ("mtd", "/usr/include/mtd"),
];

/// What e2fsprogs is built without: everything but making and checking ext4.
const E2FSPROGS_OPTIONS: [&str; 20] = [
    "--quiet",
    "--host=x86_64-linux-musl",
    "--enable-libuuid",
    "--enable-libblkid",
    "--disable-nls",
    "--disable-debugfs",
    "--disable-imager",
    "--disable-resizer",
    "--disable-defrag",
    "--disable-fsck",
    "--disable-e2initrd-helper",
    "--disable-uuidd",
    "--disable-tdb",
    "--disable-bmap-stats",
    "--disable-fuse2fs",
    "--disable-backtrace",
    "--disable-mmp",
    "--with-crond-dir=no",
    "--with-systemd-unit-dir=no",
    "--with-udev-rules-dir=no",
];

/// The programs, and the versions their manifest entries name.
#[derive(Debug)]
pub struct Userland {
    /// The busybox binary.
    pub busybox: PathBuf,
    /// Every applet of it, in order.
    pub applets: Vec<String>,
    /// Debian's version of busybox.
    pub busybox_version: String,
    /// Makes the state file system.
    pub mke2fs: PathBuf,
    /// Checks it.
    pub e2fsck: PathBuf,
    /// Debian's version of e2fsprogs.
    pub e2fsprogs_version: String,
}

/// Builds both, or finds them in the cache.
///
/// # Errors
/// If a source cannot be fetched, an option of busybox's configuration does not exist, or a build fails.
pub fn build(workspace: &Workspace) -> Result<Userland> {
    let compiler = output(tool("musl-gcc").arg("--version"))?;
    let headers = output(tool("dpkg-query").args(["--show", "linux-libc-dev", "musl-dev"]))?;
    let key = |kind: &str, source: &SourcePackage| {
        let key = Key::new(kind).part("source", &source.identity).part("flags", C_FLAGS);
        key.part("compiler", compiler.lines().next().unwrap_or_default()).part("headers", &headers)
    };

    let source = source::fetch(workspace, "busybox")?;
    let path = workspace.root.join("image-build/userland/busybox.config");
    let options = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let busybox_key = key("busybox 1", &source).part("options", &options).finish();
    let busybox =
        workspace.cache.entry_or("userland", &busybox_key, |folder| build_busybox(&source, &options, folder))?;
    let applets = fs::read_to_string(busybox.join("applets")).context("read the list of applets")?;
    let busybox_version = source.version;

    let source = source::fetch(workspace, "e2fsprogs")?;
    let e2fsprogs_key = key("e2fsprogs 2", &source).part("options", E2FSPROGS_OPTIONS.join(" ")).finish();
    let e2fsprogs = workspace.cache.entry_or("userland", &e2fsprogs_key, |folder| build_e2fsprogs(&source, folder))?;
    Ok(Userland {
        busybox: busybox.join("busybox"),
        applets: applets.lines().map(str::to_owned).collect(),
        busybox_version,
        mke2fs: e2fsprogs.join("mke2fs"),
        e2fsck: e2fsprogs.join("e2fsck"),
        e2fsprogs_version: source.version,
    })
}

fn build_busybox(source: &SourcePackage, options: &str, into: &Path) -> Result<()> {
    step(&format!("building busybox {}", source.version));
    let scratch = Scratch::new(into)?;
    let tree = scratch.folder.join("tree");
    output(tool("cp").args(["-a", "--"]).arg(&source.tree).arg(&tree))?;
    let log = scratch.folder.join("log");
    // busybox's old kconfig ignores KCONFIG_ALLCONFIG for booleans, so: take every symbol it knows, switch it off,
    // and append what is wanted; `oldconfig` then sorts out what depends on what.
    logged(tool("make").arg("-C").arg(&tree).arg("allyesconfig"), &log)?;
    let path = tree.join(".config");
    let known = fs::read_to_string(&path).context("read busybox's .config")?;
    fs::write(&path, only(&known, options)).context("write busybox's .config")?;
    logged(tool("sh").args(["-c", "yes '' | make oldconfig"]).current_dir(&tree), &log)?;
    let final_options = fs::read_to_string(&path).context("read busybox's .config")?;
    let missing: Vec<&str> = wanted(options).filter(|line| !final_options.lines().any(|is| is == *line)).collect();
    if !missing.is_empty() {
        bail!("busybox has no such options, or they lack something they need:\n  {}", missing.join("\n  "));
    }
    let flags = format!("{C_FLAGS} -idirafter {}", scratch.headers.display());
    let mut make = tool("make");
    make.arg("-C").arg(&tree).arg(format!("-j{}", jobs())).arg("CC=musl-gcc").arg(format!("EXTRA_CFLAGS={flags}"));
    // No name of the build machine, no time.
    make.arg("busybox").env("KCONFIG_NOTIMESTAMP", "1");
    logged(&mut make, &log)?;
    let busybox = tree.join("busybox");
    let applets = output(tool(&busybox.to_string_lossy()).arg("--list"))?;
    fs::write(into.join("applets"), applets).context("write the list of applets")?;
    fs::copy(&busybox, into.join("busybox")).context("copy busybox")?;
    scratch.remove()
}

fn wanted(options: &str) -> impl Iterator<Item = &str> {
    options.lines().filter(|line| line.starts_with("CONFIG_"))
}

/// `known` with every boolean off and then `options` on top.
fn only(known: &str, options: &str) -> String {
    let symbol = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.split(['=', ' ']).next().unwrap_or_default().to_owned()
    };
    let chosen: Vec<String> = wanted(options).map(symbol).collect();
    let mut text = String::new();
    for line in known.lines().filter(|line| !chosen.contains(&symbol(line))) {
        match line.strip_suffix("=y") {
            Some(symbol) => text += &format!("# {symbol} is not set\n"),
            None => text += &format!("{line}\n"),
        }
    }
    wanted(options).for_each(|line| text += &format!("{line}\n"));
    text
}

fn build_e2fsprogs(source: &SourcePackage, into: &Path) -> Result<()> {
    step(&format!("building mke2fs and e2fsck {}", source.version));
    let scratch = Scratch::new(into)?;
    let objects = scratch.folder.join("objects");
    fs::create_dir(&objects).context("make a build folder")?;
    let log = scratch.folder.join("log");
    let mut configure = tool(&source.tree.join("configure").to_string_lossy());
    configure
        .args(E2FSPROGS_OPTIONS)
        .current_dir(&objects)
        .env("CC", "musl-gcc")
        .env("CPPFLAGS", format!("-idirafter {}", scratch.headers.display()))
        .env("CFLAGS", format!("{C_FLAGS} -ffile-prefix-map={}=e2fsprogs", source.tree.display()))
        .env("LDFLAGS", "-static -Wl,--gc-sections -s");
    logged(&mut configure, &log)?;
    let builds = [("libs", "", ""), ("mke2fs", "misc", "mke2fs"), ("e2fsck", "e2fsck", "e2fsck")];
    for (target, folder, program) in builds {
        let mut make = tool("make");
        make.arg("-C").arg(objects.join(folder)).arg(format!("-j{}", jobs())).arg(target);
        logged(&mut make, &log)?;
        if !program.is_empty() {
            let from = objects.join(folder).join(program);
            fs::copy(&from, into.join(program)).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    scratch.remove()
}

/// A folder for the build itself, inside the cache entry that is being made and gone before it is complete.
struct Scratch {
    folder: PathBuf,
    headers: PathBuf,
}

impl Scratch {
    fn new(into: &Path) -> Result<Self> {
        let folder = into.join("scratch");
        let headers = folder.join("headers");
        fs::create_dir_all(&headers).with_context(|| format!("make {}", headers.display()))?;
        for (name, target) in KERNEL_HEADERS {
            symlink(target, headers.join(name)).with_context(|| format!("link {name}"))?;
        }
        Ok(Self { folder, headers })
    }

    fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_off() {
        let known = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_N=3\n# CONFIG_D is not set\n";
        let text = only(known, "# why\nCONFIG_B=y\nCONFIG_N=4\nCONFIG_D=y\n");
        assert_eq!(text, "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_N=4\nCONFIG_D=y\n");
    }
}
