//! mke2fs and e2fsck of e2fsprogs as one program: alone each would carry its own copy of the same library.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{C_FLAGS, E2FSCK, MKE2FS, Scratch};
use crate::command::{jobs, logged, output, step, tool};
use crate::source::SourcePackage;

/// What e2fsprogs is built without: everything but making and checking ext4.
pub const OPTIONS: [&str; 20] = [
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

/// The libraries of both, in e2fsprogs' folder of them.
const LIBRARIES: [&str; 6] = ["support", "ext2fs", "com_err", "blkid", "uuid", "e2p"];

/// Each program: its folder, and the variable of its Makefile that lists its objects.
const PROGRAMS: [(&str, &str, &str); 2] = [(MKE2FS, "misc", "MKE2FS_OBJS"), (E2FSCK, "e2fsck", "OBJS")];

/// Builds both into the folder, with `entry`, which chooses by the name it is called by.
///
/// # Errors
/// If the build fails.
pub fn build(source: &SourcePackage, entry: &Path, into: &Path) -> Result<()> {
    step(&format!("building mke2fs and e2fsck {}", source.version));
    let scratch = Scratch::new(into)?;
    let objects = scratch.folder.join("objects");
    fs::create_dir(&objects).context("make a build folder")?;
    let log = scratch.folder.join("log");
    let mut configure = tool(&source.tree.join("configure").to_string_lossy());
    configure
        .args(OPTIONS)
        .current_dir(&objects)
        .env("CC", "musl-gcc")
        .env("CPPFLAGS", format!("-idirafter {}", scratch.headers.display()))
        .env("CFLAGS", format!("{C_FLAGS} -ffile-prefix-map={}=e2fsprogs", source.tree.display()))
        .env("LDFLAGS", "-static");
    logged(&mut configure, &log)?;
    make(&objects, &["libs"], &log)?;
    let mut program = tool("musl-gcc");
    program.args(C_FLAGS.split(' ')).args(["-static", "-s", "-Wl,--gc-sections", "-o"]).arg(into.join("e2fsprogs"));
    program.arg(entry);
    for (name, folder, variable) in PROGRAMS {
        program.arg(one_object(&objects, name, folder, variable, &log)?);
    }
    program.arg("-Wl,--start-group");
    program.args(LIBRARIES.map(|name| objects.join(format!("lib/lib{name}.a")))).arg("-Wl,--end-group");
    logged(&mut program, &log)?;
    scratch.remove()
}

fn make(folder: &Path, targets: &[&str], log: &Path) -> Result<()> {
    logged(tool("make").arg("-C").arg(folder).arg(format!("-j{}", jobs())).args(targets), log)
}

/// Compiles a program's own objects and joins them in one that shows nothing but `main`, as `NAME_main`: the two
/// programs have functions and variables of the same names.
fn one_object(objects: &Path, name: &str, folder: &str, variable: &str, log: &Path) -> Result<PathBuf> {
    let folder = objects.join(folder);
    let rule = format!("list-of-objects: ; @echo $({variable})");
    let list = output(tool("make").arg("-sC").arg(&folder).arg("--eval").arg(rule).arg("list-of-objects"))?;
    let parts: Vec<&str> = list.split_whitespace().collect();
    make(&folder, &parts, log)?;
    let whole = objects.join(format!("{name}.o"));
    output(tool("ld").arg("-r").arg("-o").arg(&whole).args(&parts).current_dir(&folder))?;
    let main = format!("{name}_main");
    let (renamed, kept) = (format!("--redefine-sym=main={main}"), format!("--keep-global-symbol={main}"));
    output(tool("objcopy").args([renamed, kept]).arg(&whole))?;
    Ok(whole)
}
