//! Ways out of a container that were found in runtimes, each tried again.
#![allow(unsafe_code)]

use std::io::Result;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Library, Runc, Tool, agree, by_commands};

pub const CASES: &[Test] = &[
    ("cve_2024_21626_a_working_directory_by_descriptor", cve_2024_21626_a_working_directory_by_descriptor),
    ("cve_2024_21626_descriptors_of_the_caller", cve_2024_21626_descriptors_of_the_caller),
    ("cve_2019_5736_the_runtimes_binary_cannot_be_written", cve_2019_5736_the_runtimes_binary_cannot_be_written),
    ("cve_2021_30465_a_mount_point_exchanged_meanwhile", cve_2021_30465_a_mount_point_exchanged_meanwhile),
    ("cve_2019_19921_proc_as_a_link", cve_2019_19921_proc_as_a_link),
    ("cve_2023_27561_proc_as_a_link_in_a_volume", cve_2023_27561_proc_as_a_link_in_a_volume),
    ("sys_as_a_link", sys_as_a_link),
    ("cve_2025_31133_masked_by_a_null_device_of_the_image", cve_2025_31133_masked_by_a_null_device_of_the_image),
    ("cve_2025_52565_a_console_that_leads_elsewhere", cve_2025_52565_a_console_that_leads_elsewhere),
    ("cve_2025_52881_writes_to_procfs_led_elsewhere", cve_2025_52881_writes_to_procfs_led_elsewhere),
    ("no_release_agent_in_reach", no_release_agent_in_reach),
    ("the_cgroups_above_are_out_of_reach", the_cgroups_above_are_out_of_reach),
    ("capabilities_of_the_caller_are_not_inherited", capabilities_of_the_caller_are_not_inherited),
    ("the_callers_keyring_is_not_inherited", the_callers_keyring_is_not_inherited),
];

/// The host's root and other directories, left open by a careless caller.
fn left_open() -> Vec<rustix::fd::OwnedFd> {
    ["/", "/sys/fs/cgroup", "/host"]
        .map(|path| rustix::fs::open(path, OFlags::DIRECTORY, Mode::empty()).unwrap())
        .into()
}

/// Only the host's root has this directory.
const LOOK: &str = "[ -e host/usr ] || [ -e ../host/usr ] || [ -e ../../../host/usr ] && echo escaped || echo inside";

fn verdict(output: &str) -> &'static str {
    if output.contains("escaped") { "escaped " } else { "safe " }
}

fn cve_2024_21626_a_working_directory_by_descriptor() {
    let open = left_open();
    for number in 3..12 {
        let bundle = Bundle::new(LOOK).set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        agree(&bundle, "safe ", &[], |tool| verdict(&tool.run()).to_owned());
    }
    agree(&Bundle::new("exec sleep 100"), &"safe ".repeat(9), &[], |tool| {
        tool.start();
        let run = |number| tool.say(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), &tool.id, "sh", "-c", LOOK]);
        (3..12).map(|number| verdict(&run(number).out)).collect()
    });
    drop(open);
}

fn cve_2024_21626_descriptors_of_the_caller() {
    let open = left_open();
    // ls has one of its own for the directory.
    agree(&Bundle::new("ls /proc/self/fd; exec sleep 100"), "0\n1\n2\n3\n", &[], |tool| {
        tool.start();
        tool.say(&["exec", &tool.id, "ls", "/proc/self/fd"]).out
    });
    Bundle::new("ls /proc/self/fd").prints("0\n1\n2\n3\n", &[]);
    drop(open);
}

/// The attack: get hold of the binary by /proc/PID/exe while the runtime sets the container up, and write it when
/// nobody executes it any more.
fn cve_2019_5736_the_runtimes_binary_cannot_be_written() {
    agree(&Bundle::new("true"), "refused", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let held = rustix::fs::open(format!("/proc/{}/exe", tool.pid()), OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(tool.say(&["delete", "--force", &tool.id]).code, 0);
        let again = format!("/proc/self/fd/{}", held.as_raw_fd());
        match rustix::fs::open(again, OFlags::WRONLY, Mode::empty()) {
            Ok(_) => "written".to_owned(),
            Err(_) => "refused".to_owned(),
        }
    });
}

/// While containers are made, somebody in another one that shares the volume puts a link in a mount point's place.
fn cve_2021_30465_a_mount_point_exchanged_meanwhile() {
    let script = "grep -c ' /volume/point \\| /volume/link \\| /away ' /proc/self/mountinfo; exit 0";
    let prepare = "mkdir -p volume/point data rootfs/away; ln -s /away volume/link; touch data/mark";
    let bundle = Bundle::new(script).prepare(prepare).mount("/volume", "bind", "volume", &["bind"]);
    let bundle = bundle.mount("/volume/point", "bind", "data", &["bind"]);
    let _ = std::fs::create_dir("/away");
    agree(&bundle, "safe", &[], |tool| {
        let attacker = Attacker::exchange(&tool.bundle.join("volume"));
        let outputs: Vec<String> = (0..20).map(|_| tool.run()).collect();
        drop(attacker);
        // Mounted inside, or refused; never on the host.
        let inside = outputs.iter().all(|output| matches!(output.as_str(), "1\n" | "refused\n"));
        let outside = std::fs::read_dir("/away").unwrap().count();
        if inside && outside == 0 { "safe".to_owned() } else { format!("{outputs:?} {outside}") }
    });
}

/// A process that exchanges two names until it is dropped. Not a thread: the library's callers have one only.
struct Attacker(rustix::process::Pid);

impl Attacker {
    fn exchange(volume: &std::path::Path) -> Self {
        let [point, link] = ["point", "link"]
            .map(|name| std::ffi::CString::new(volume.join(name).into_os_string().into_encoded_bytes()).unwrap());
        // SAFETY: this process has one thread, so the copy may do anything; it makes system calls until it is killed.
        match unsafe { libc::fork() } {
            0 => loop {
                let _ = rustix::fs::renameat_with(CWD, &point, CWD, &link, RenameFlags::EXCHANGE);
            },
            pid => Self(rustix::process::Pid::from_raw(pid).unwrap()),
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(self.0), rustix::process::WaitOptions::empty()).unwrap();
    }
}

fn cve_2019_19921_proc_as_a_link() {
    Bundle::new("true").prepare("mkdir rootfs/elsewhere; ln -s elsewhere rootfs/proc").is_refused(&[]);
}

fn cve_2023_27561_proc_as_a_link_in_a_volume() {
    let bundle = Bundle::new("true").prepare("mkdir -p volume/proc; ln -s /volume/proc rootfs/proc");
    let mut bundle = bundle.mount("/volume", "bind", "volume", &["bind"]);
    // Before /proc.
    bundle.config["mounts"].as_array_mut().unwrap().rotate_right(1);
    bundle.is_refused(&[]);
}

fn sys_as_a_link() {
    Bundle::new("true").prepare("mkdir rootfs/elsewhere; ln -s elsewhere rootfs/sys").is_refused(&[]);
}

/// Without a /dev of the runtime's, the image says what /dev/null is.
fn without_dev(bundle: Bundle) -> Bundle {
    let mut bundle = bundle;
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle
}

fn cve_2025_31133_masked_by_a_null_device_of_the_image() {
    let prepare =
        "mkdir rootfs/dev; echo secret >rootfs/secret; echo other >rootfs/other; ln -s /other rootfs/dev/null";
    let bundle =
        without_dev(Bundle::new("cat /secret; grep -c ' /other ' /proc/self/mountinfo; exit 0").prepare(prepare));
    let refuses = "refuses the image";
    bundle.set("/linux/maskedPaths", json!(["/secret"])).prints("0\n", &[(Crun, refuses), (Runc, refuses)]);
}

fn cve_2025_52565_a_console_that_leads_elsewhere() {
    let prepare = "mkdir -p rootfs/dev; ln -s /proc/sys/kernel/core_pattern rootfs/dev/console";
    let bundle = without_dev(Bundle::new("grep -c ' /proc/sys/kernel' /proc/self/mountinfo; exit 0").prepare(prepare));
    let bundle = bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
    agree(&bundle.set("/process/terminal", json!(true)), "safe", &[], |tool| {
        let shown = tool.in_terminal();
        // As many as lead there: paths that are made read-only afterwards bring a second one.
        let there = |line: &str| line.trim().parse::<u32>().is_ok_and(|count| count > 0);
        if shown.lines().any(there) { shown } else { "safe".to_owned() }
    });
}

fn cve_2025_52881_writes_to_procfs_led_elsewhere() {
    let prepare =
        "mkdir -p fake/ipv4; echo 0 >fake/ipv4/ip_forward; ln -s /notes/target fake/core; echo 0 >notes/target";
    let bundle = Bundle::new("true").prepare(prepare).mount("/proc/sys/net", "bind", "fake", &["bind"]);
    let bundle = bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    agree(&bundle, "refused 0\n", &[(Crun, "does not look what is mounted there")], |tool| {
        let said = tool.run();
        format!("{} {}", said.trim(), std::fs::read_to_string(tool.bundle.join("fake/ipv4/ip_forward")).unwrap())
    });
}

fn with_capabilities(bundle: Bundle, names: &[&str]) -> Bundle {
    bundle.set("/process/capabilities", json!({ "bounding": names, "effective": names, "permitted": names }))
}

fn no_release_agent_in_reach() {
    let script = "mkdir /tree
        for options in rdma memory none,name=escape; do
            mount -t cgroup -o $options none /tree 2>/dev/null || continue
            echo /notes/agent 2>/dev/null >/tree/release_agent && echo escaped
        done
        find /sys/fs/cgroup -name release_agent; find /sys/fs/cgroup -name notify_on_release; echo end";
    Bundle::new(script).prints("end\n", &[]);
    // Root of its own user namespace may mount, but not these.
    with_capabilities(Bundle::unprivileged(script), &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).prints("end\n", &[]);
}

fn the_cgroups_above_are_out_of_reach() {
    let script = "mount -o remount,rw /sys/fs/cgroup 2>/dev/null
        mkdir -p /tree; mount -t cgroup2 none /tree 2>/dev/null
        for tree in /sys/fs/cgroup /tree; do
            grep -q '^0::/\\.\\.' /proc/self/cgroup && echo above
            [ -e $tree/cgroup.type ] || [ ! -e $tree/cgroup.procs ] || echo root
            ls -d $tree/differential-* 2>/dev/null && echo others
        done; echo end";
    Bundle::new(script).prints("end\n", &[]);
    with_capabilities(Bundle::unprivileged(script), &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).prints("end\n", &[]);
}

/// CVE-2022-24769, CVE-2022-29162: what the caller could pass on must not be there.
fn capabilities_of_the_caller_are_not_inherited() {
    let look = "grep -E 'Cap(Inh|Amb)' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    let said = |tool: &Tool, arguments: &[&str]| with(tool, arguments, pass_on_capabilities, keep_capabilities);
    agree(&Bundle::new("exec sleep 100"), &none.repeat(2), &[], |tool| {
        let once = tool.another(&Bundle::new(look));
        let first = said(&once, &["run", &once.id]);
        tool.start();
        first + &said(tool, &["exec", &tool.id, "sh", "-c", look])
    });
    by_commands(&Bundle::new("exec sleep 100"), none, &[], |tool| {
        tool.start();
        said(tool, &["exec", "--cap", "CAP_NET_RAW", &tool.id, "sh", "-c", look])
    });
}

/// What is printed where the caller has done something to itself first. The library's caller is this process, which
/// takes it back.
fn with(tool: &Tool, arguments: &[&str], before: fn() -> Result<()>, after: fn() -> Result<()>) -> String {
    if tool.runtime == Library {
        before().unwrap();
        let said = tool.say(arguments);
        after().unwrap();
        return said.out;
    }
    let mut command = tool.command(arguments);
    // SAFETY: what the cases give as `before` makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(before) };
    tool.finish(command).out
}

fn pass_on_capabilities() -> Result<()> {
    use rustix::thread::CapabilitySet;
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    for capability in [CapabilitySet::CHOWN, CapabilitySet::NET_RAW, CapabilitySet::SYS_ADMIN] {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn keep_capabilities() -> Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = rustix::thread::CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// By keyctl(2) KEYCTL_DESCRIBE of the session's keyring (-3).
fn the_callers_keyring_is_not_inherited() {
    let look = r#"$text = "\0" x 200; $length = syscall(250, 6, -3, $text, 200);
        print(($length > 0 && substr($text, 0, $length) =~ /differential-secret/) ? "inherited " : "own ")"#;
    let by_perl = |bundle: Bundle| bundle.set("/process/args", json!(["/usr/bin/perl", "-e", look]));
    agree(&Bundle::new("exec sleep 100"), "own own ", &[(Crun, "passes it on in exec")], |tool| {
        // A session's keyring cannot be left again, and does no harm to the cases after it.
        let with_keyring = |tool: &Tool, arguments: &[&str]| with(tool, arguments, join_keyring, || Ok(()));
        let once = tool.another(&by_perl(Bundle::new("")));
        let first = with_keyring(&once, &["run", &once.id]);
        tool.start();
        first + &with_keyring(tool, &["exec", &tool.id, "perl", "-e", look])
    });
}

fn join_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: this keyctl(2) operation reads a NUL-terminated name, which is static.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, c"differential-secret".as_ptr()) };
    if joined < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
