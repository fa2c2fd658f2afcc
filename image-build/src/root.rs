//! The root file system: which paths there are, and their packing into EROFS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::digest::{self, Key};
use crate::erofs;
use crate::manifest::Tree;
use crate::userland::{E2FSCK, MKE2FS, Userland};
use crate::workspace::Workspace;

/// Folders of every root, with their modes. Mount points stay empty.
const FOLDERS: [(&str, u32); 16] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib/berth", 0o755),
    ("usr/lib/berth/system-containers", 0o755),
    ("usr/share", 0o755),
    ("usr/share/licenses", 0o755),
    ("var", 0o755),
];

/// Links that make the usual paths work, or point read-only /etc at what the running system knows.
const LINKS: [(&str, &str); 9] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("usr/sbin", "bin"),
    ("usr/bin/init", "berth"),
    ("etc/mtab", "/proc/self/mounts"),
    ("etc/hostname", "/run/berth/hostname"),
    ("etc/hosts", "/run/berth/hosts"),
    ("etc/resolv.conf", "/run/berth/resolv.conf"),
];

/// Applets whose names belong to Berth's own programs.
const OWN_NAMES: [&str; 4] = ["init", "halt", "poweroff", "reboot"];

/// A packed root.
#[derive(Debug)]
pub struct Root {
    /// The EROFS image.
    pub image: PathBuf,
    /// Digest of it.
    pub digest: String,
}

/// Assembles and packs the root, and writes `rootfs.erofs` and `manifest.txt` to `out`.
///
/// # Errors
/// If a part cannot be read, two parts claim one path, or mkfs.erofs fails.
pub fn build(workspace: &Workspace, userland: &Userland, berth: &Path, out: &Path) -> Result<Root> {
    let tree = assemble(workspace, userland, berth)?;
    let manifest = tree.to_string();
    fs::write(out.join("manifest.txt"), &manifest).context("write manifest.txt")?;
    let image = out.join("rootfs.erofs");
    let uuid = digest::uuid_text(&Key::new("root").part("manifest", &manifest).uuid());
    let packed = erofs::pack(workspace, &tree, &uuid)?;
    fs::copy(&packed, &image).with_context(|| format!("copy {}", packed.display()))?;
    Ok(Root { digest: digest::of_file(&image)?, image })
}

fn assemble(workspace: &Workspace, userland: &Userland, berth: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for (path, mode) in FOLDERS {
        tree.folder(path, mode, "base")?;
    }
    for (path, target) in LINKS {
        tree.link(path, target, "base")?;
    }
    tree.copy("usr/bin/berth", berth, 0o755, "cargo: berth")?;
    let origin = format!("Debian: busybox {}", userland.busybox_version);
    tree.copy("usr/bin/busybox", &userland.busybox, 0o755, &origin)?;
    for applet in userland.applets.iter().filter(|applet| !OWN_NAMES.contains(&applet.as_str())) {
        if applet != "busybox" {
            tree.link(&format!("usr/bin/{applet}"), "busybox", &origin)?;
        }
    }
    for name in &OWN_NAMES[1..] {
        tree.link(&format!("usr/bin/{name}"), "berth", "base")?;
    }
    let origin = format!("Debian: e2fsprogs {}", userland.e2fsprogs_version);
    tree.copy(&format!("usr/bin/{E2FSCK}"), &userland.e2fsprogs, 0o755, &origin)?;
    tree.link(&format!("usr/bin/{MKE2FS}"), E2FSCK, &origin)?;
    add_static_files(workspace, &mut tree)?;
    add_system_containers(workspace, &mut tree)?;
    let release = os_release(workspace.version());
    tree.file("etc/os-release", release, 0o644, "image-build")?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        tree.copy(&format!("usr/share/licenses/{license}"), &workspace.root.join(license), 0o644, license)?;
    }
    Ok(tree)
}

/// Everything below image-build/root, as it lies there.
fn add_static_files(workspace: &Workspace, tree: &mut Tree) -> Result<()> {
    let etc = workspace.root.join("image-build/root/etc");
    for name in sorted_names(&etc)? {
        tree.copy(&format!("etc/{name}"), &etc.join(&name), 0o644, &format!("image-build/root/etc/{name}"))?;
    }
    Ok(())
}

/// Each system container's description, and the name its program is called by.
fn add_system_containers(workspace: &Workspace, tree: &mut Tree) -> Result<()> {
    let folder = workspace.root.join("system-containers");
    for name in sorted_names(&folder)? {
        let description = folder.join(&name).join("container.toml");
        if description.is_file() {
            let origin = format!("system-containers/{name}");
            tree.copy(&format!("usr/lib/berth/system-containers/{name}.toml"), &description, 0o644, &origin)?;
            tree.link(&format!("usr/bin/berth-{name}"), "berth", &origin)?;
        }
    }
    Ok(())
}

fn sorted_names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// os-release(5).
fn os_release(version: &str) -> String {
    format!(
        "ID=berth\nNAME=Berth\nPRETTY_NAME=\"Berth {version}\"\nVERSION={version}\nVERSION_ID={version}\n\
         VARIANT_ID=berth\nANSI_COLOR=\"0;36\"\n"
    )
}
