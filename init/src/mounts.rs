//! The mounts, folders and kernel settings that everything else stands on, as tables.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// One mount of the early boot.
#[derive(Debug)]
pub struct EarlyMount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
    /// Whether the boot is worth nothing without it; the others may be missing from a kernel.
    needed: bool,
}

const STRICT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// In this order. /dev is mounted by the kernel before PID 1 starts (CONFIG_DEVTMPFS_MOUNT), and here where it was not.
#[rustfmt::skip]
pub const EARLY_MOUNTS: &[EarlyMount] = &[
    EarlyMount { kind: "proc",     target: "/proc",                    flags: STRICT, options: "", needed: true },
    EarlyMount { kind: "sysfs",    target: "/sys",                     flags: STRICT, options: "", needed: true },
    EarlyMount { kind: "devtmpfs", target: "/dev",                     flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), options: "mode=0755", needed: true },
    EarlyMount { kind: "devpts",   target: "/dev/pts",                 flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), options: "gid=5,mode=0620,ptmxmode=0666", needed: true },
    EarlyMount { kind: "tmpfs",    target: "/dev/shm",                 flags: STRICT, options: "mode=1777", needed: true },
    EarlyMount { kind: "mqueue",   target: "/dev/mqueue",              flags: STRICT, options: "", needed: false },
    EarlyMount { kind: "tmpfs",    target: "/run",                     flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), options: "mode=0755", needed: true },
    EarlyMount { kind: "tmpfs",    target: "/tmp",                     flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), options: "mode=1777", needed: true },
    EarlyMount { kind: "cgroup2",  target: "/sys/fs/cgroup",           flags: STRICT, options: "nsdelegate,memory_recursiveprot", needed: true },
    EarlyMount { kind: "bpf",      target: "/sys/fs/bpf",              flags: STRICT, options: "mode=0700", needed: false },
    EarlyMount { kind: "efivarfs", target: "/sys/firmware/efi/efivars", flags: STRICT, options: "", needed: false },
];

/// Folders of the running machine, with their modes.
pub const RUNTIME_FOLDERS: &[(&str, u32)] = &[
    ("/run/berth", 0o755),
    ("/run/berth/user-data", 0o755),
    ("/run/root", 0o700),
    ("/run/lock", 0o755),
    (LAYERS, 0o700),
];

/// Where the layers of images are mounted, each once for all containers. Nobody who has a clone of /run has it: such a
/// clone would hold on to layers that are long gone.
pub const LAYERS: &str = "/run/layers";

/// Kernel settings of a machine that only runs containers, below /proc/sys. Each is the stricter choice where the
/// kernel's default is a compromise (Documentation/admin-guide/sysctl); a configuration may set any of them again.
pub const KERNEL_SETTINGS: &[(&str, &str)] = &[
    // What the kernel prints and where it lives is for root.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
    // 2: off for the unprivileged, and an administrator may still change his mind.
    ("kernel/unprivileged_bpf_disabled", "2"),
    ("net/core/bpf_jit_harden", "2"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/sysrq", "0"),
    ("kernel/yama/ptrace_scope", "1"),
    ("kernel/perf_event_paranoid", "3"),
    // The size of the tables that the pidfds and pipes of a thousand containers need.
    ("kernel/pid_max", "4194304"),
    // No limit: one container that opens all that the machine allows would leave none to system containers, which have no
    // CAP_SYS_ADMIN. What an open file takes counts as its container's memory, and is bounded with it. A process's own
    // limit stays below the kernel's fs/nr_open.
    ("fs/file-max", "9223372036854775807"),
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "524288"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/suid_dumpable", "0"),
    ("vm/mmap_min_addr", "65536"),
    // Redis and others ask for it; nothing here forks large processes without running them.
    ("vm/overcommit_memory", "1"),
    ("vm/max_map_count", "262144"),
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/secure_redirects", "0"),
    ("net/ipv4/conf/default/secure_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/accept_source_route", "0"),
    ("net/ipv4/icmp_echo_ignore_broadcasts", "1"),
    // All namespaces of the machine share the tables of neighbours. Five hundred containers that talk to the machine are a
    // thousand entries, of each family, and the kernel's own bound is 1024: beyond it nobody new is reached.
    ("net/ipv4/neigh/default/gc_thresh1", "4096"),
    ("net/ipv4/neigh/default/gc_thresh2", "8192"),
    ("net/ipv4/neigh/default/gc_thresh3", "16384"),
    ("net/ipv6/neigh/default/gc_thresh1", "4096"),
    ("net/ipv6/neigh/default/gc_thresh2", "8192"),
    ("net/ipv6/neigh/default/gc_thresh3", "16384"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_source_route", "0"),
    ("net/ipv6/conf/default/accept_source_route", "0"),
];

/// Makes the early mounts and folders. What went wrong comes back, a sentence each; the boot goes on.
pub fn mount_early() -> Vec<String> {
    // Only with a umask of nothing are the modes below the real ones.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let mut problems: Vec<String> = EARLY_MOUNTS.iter().filter_map(|entry| mount_one(entry).err()).collect();
    // Propagation into the containers' mount namespaces, one way (mount_namespaces(7)).
    if let Err(error) = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>) {
        problems.push(format!("make the mounts shared: {error}"));
    }
    for (path, mode) in RUNTIME_FOLDERS {
        problems.extend(make_folder(Path::new(path), *mode).err());
    }
    problems.extend(keep_to_itself(LAYERS).err());
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    problems
}

/// Makes a folder a mount that is in no clone of what is above it.
fn keep_to_itself(folder: &str) -> Result<(), String> {
    let fail = |error: Errno| format!("{folder}: {error}");
    mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(fail)?;
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_UNBINDABLE, None::<&str>).map_err(fail)
}

fn mount_one(entry: &EarlyMount) -> Result<(), String> {
    if !Path::new(entry.target).is_dir() {
        // Below /dev and /sys/fs the folder may have to be made; where that is refused, mount says why.
        let _ = fs::create_dir(entry.target);
    }
    match mount(Some(entry.kind), entry.target, Some(entry.kind), entry.flags, Some(entry.options)) {
        // EBUSY: the kernel has mounted it already (devtmpfs).
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        // ENODEV, ENOENT: this kernel or firmware does not have it.
        Err(Errno::ENODEV | Errno::ENOENT | Errno::EINVAL) if !entry.needed => Ok(()),
        Err(error) => Err(format!("mount {} on {}: {error}", entry.kind, entry.target)),
    }
}

/// Makes a folder with this mode; one that exists is left as it is.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), String> {
    match fs::DirBuilder::new().mode(mode).recursive(true).create(path) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("make the folder {}: {error}", path.display())),
    }
}

/// Writes [`KERNEL_SETTINGS`]. A setting that this kernel does not have is passed over.
pub fn apply_kernel_settings() -> Vec<String> {
    let write = |(name, value): &(&str, &str)| match fs::write(format!("/proc/sys/{name}"), value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some(format!("set {name} to {value}: {error}")),
        _ => None,
    };
    KERNEL_SETTINGS.iter().filter_map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_comes_after_the_one_it_stands_on() {
        for (index, entry) in EARLY_MOUNTS.iter().enumerate() {
            let later = &EARLY_MOUNTS[index + 1..];
            let below = later.iter().find(|other| entry.target.starts_with(&format!("{}/", other.target)));
            assert!(below.is_none(), "{} is mounted before {below:?}", entry.target);
        }
    }

    #[test]
    fn the_tables_of_neighbours_have_room_for_what_a_thousand_containers_know() {
        for family in ["ipv4", "ipv6"] {
            let bounds = [1, 2, 3].map(|number| {
                let name = format!("net/{family}/neigh/default/gc_thresh{number}");
                let found = KERNEL_SETTINGS.iter().find(|(key, _)| *key == name);
                found.map_or(0, |(_, value)| value.parse::<u32>().unwrap())
            });
            assert!(bounds.is_sorted() && bounds[0] >= 2 * 1000, "{family}: {bounds:?}");
        }
    }

    #[test]
    fn every_setting_is_a_path_below_proc_sys() {
        assert!(KERNEL_SETTINGS.iter().all(|(name, _)| !name.starts_with('/') && !name.contains('.')));
    }
}
