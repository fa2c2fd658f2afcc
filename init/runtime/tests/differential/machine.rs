//! A private view of this machine that all runtimes share: the peers' files as the root (on a tmpfs, so that
//! nothing of it is kept), pure cgroup v2, the host's programs at /host/usr for the containers to run.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Where the containers' programs come from.
pub const PROGRAMS: &str = "/host/usr";

/// What the private view is made of.
struct Parts {
    /// Becomes the root.
    lower: PathBuf,
    /// Becomes [`PROGRAMS`].
    programs: PathBuf,
    berth_oci: PathBuf,
}

/// Moves this process into the private view: of this host with the peers, or, in a machine that has neither shell nor
/// peers, of `brought`, a directory with a /usr of programs and berth-oci. The error is why the cases cannot run.
pub fn enter(brought: Option<&Path>) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    let parts = match brought {
        Some(directory) => Parts {
            lower: directory.to_owned(),
            programs: directory.join("usr"),
            berth_oci: directory.join("usr/bin/berth-oci"),
        },
        None => {
            Parts { lower: fetch_peers()?, programs: "/usr".into(), berth_oci: env!("CARGO_BIN_EXE_berth-oci").into() }
        }
    };
    close_on_exec().map_err(|error| format!("cannot see to the descriptors: {error}"))?;
    build(&parts).map_err(|error| format!("cannot build the private machine: {error}"))
}

/// What whoever runs the test has left open is nobody's here; a case that leaks descriptors opens its own.
fn close_on_exec() -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse::<i32>().unwrap_or_default();
        if number > 2 {
            // SAFETY: open, or gone with the directory's own by now, which fcntl(2) then says; nothing is kept.
            let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// The suite, the folder in the cache, and the packages.
const PEERS: [&str; 4] = ["testing", "peers", "crun", "runc"];

fn fetch_peers() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image-build/fetch-debian.sh");
    let output = Command::new(&script)
        .args(PEERS)
        .output()
        .map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("no crun and runc: {}", text.lines().last().unwrap_or("fetch-debian.sh failed")));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn build(parts: &Parts) -> std::io::Result<()> {
    let runtime = std::fs::read(&parts.berth_oci)?;
    // SAFETY: unshare(2) of the mount namespace is unsafe only for what other threads share; there are none.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // They may be below what is mounted over next.
    let [lower, programs] = [std::fs::File::open(&parts.lower)?, std::fs::File::open(&parts.programs)?];
    let [lower_path, programs_path] = [&lower, &programs].map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
    let base = Path::new("/tmp");
    rustix::mount::mount("tmpfs", base, "tmpfs", MountFlags::empty(), c"mode=755")?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
    for directory in [&upper, &work, &root] {
        std::fs::create_dir(directory)?;
    }
    let options = format!("lowerdir={lower_path},upperdir={},workdir={}", upper.display(), work.display());
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("overlay", &root, "overlay", MountFlags::empty(), options.as_c_str())?;
    for name in ["proc", "sys", "dev", "tmp", "run", "old", "host/usr", "host/tmp", "tree"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    for (from, to) in [("/proc", "proc"), ("/sys", "sys"), ("/dev", "dev"), (programs_path.as_str(), "host/usr")] {
        rustix::mount::mount_bind_recursive(from, root.join(to))?;
    }
    // Two file systems, one below the other, for mounts to be made of.
    for name in ["tmp", "run", "tree", "tree/inner"] {
        std::fs::create_dir_all(root.join(name))?;
        rustix::mount::mount("tmpfs", root.join(name), "tmpfs", MountFlags::empty(), c"mode=755")?;
    }
    let cgroups = root.join("sys/fs/cgroup");
    // Not again where it is version 2 already: that would change the options of the one that is there.
    if !cgroups.join("cgroup.controllers").exists() {
        // Version 1, where the host has it. Not there is fine.
        let _ = rustix::mount::unmount(&cgroups, UnmountFlags::DETACH);
        rustix::mount::mount("cgroup2", &cgroups, "cgroup2", MountFlags::empty(), None)?;
    }
    let program = root.join("usr/bin/berth-oci");
    std::fs::write(&program, &runtime)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for link in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join("host").join(link))?;
    }
    rustix::mount::mount_bind(root.join("tmp"), root.join("host/tmp"))?;
    // Not chroot(2): user namespaces can only be made where the root is that of the mount namespace.
    rustix::process::pivot_root(&root, root.join("old"))?;
    rustix::process::chdir("/")?;
    rustix::mount::unmount("/old", UnmountFlags::DETACH)?;
    std::fs::remove_dir("/old")
}

/// Has a command start with descriptors 3 and up open on /dev/null. The caller has those numbers in use.
pub fn open_from_three(command: &mut Command, count: i32) {
    let replace = move || {
        let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
        for number in 3..3 + count {
            // SAFETY: by this function's contract the number is open. Whoever owns it is the parent's affair: this
            // process is about to execute a program, and the owner made here is never dropped.
            let place = unsafe { std::os::fd::FromRawFd::from_raw_fd(number) };
            rustix::io::dup2(&null, &mut std::mem::ManuallyDrop::new(place))?;
        }
        Ok(())
    };
    // SAFETY: open(2) and dup2(2) may be called between fork and exec; the closure allocates nothing.
    unsafe { command.pre_exec(replace) };
}

/// The host's shell in `directory`, with the host's programs at their places and the private /tmp at its own.
pub fn host_shell(script: &str, directory: &Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-euc", script]).env_clear().env("PATH", "/usr/sbin:/usr/bin");
    let directory = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: chroot(2) and chdir(2) may be called between fork and exec; the closure allocates nothing.
    unsafe {
        shell.pre_exec(move || {
            rustix::process::chroot(c"/host")?;
            Ok(rustix::process::chdir(directory.as_c_str())?)
        });
    }
    shell
}
