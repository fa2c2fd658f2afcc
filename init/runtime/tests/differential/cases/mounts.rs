//! `mounts`, `root`, propagation, masked and read-only paths.

use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc};

pub const CASES: &[Test] = &[
    ("the_default_mounts_are_there", the_default_mounts_are_there),
    ("the_default_mounts_of_a_user_namespace_are_there", the_default_mounts_of_a_user_namespace_are_there),
    ("the_root_is_read_only", the_root_is_read_only),
    ("a_root_that_is_not_there_is_refused", a_root_that_is_not_there_is_refused),
    ("mounts_come_in_their_order", mounts_come_in_their_order),
    ("a_relative_destination_is_below_the_root", a_relative_destination_is_below_the_root),
    ("a_relative_source_is_the_bundles", a_relative_source_is_the_bundles),
    ("options_of_the_mount", options_of_the_mount),
    ("a_mount_is_changed_by_remount", a_mount_is_changed_by_remount),
    ("the_later_of_two_options_wins", the_later_of_two_options_wins),
    ("silent_is_taken", silent_is_taken),
    ("a_read_only_tmpfs_takes_mounts_and_devices_first", a_read_only_tmpfs_takes_mounts_and_devices_first),
    ("options_of_the_file_system", options_of_the_file_system),
    ("an_unknown_option_is_the_file_systems", an_unknown_option_is_the_file_systems),
    ("recursive_options", recursive_options),
    ("propagation_of_a_mount", propagation_of_a_mount),
    ("propagation_of_the_root", propagation_of_the_root),
    ("a_shared_root_belongs_to_a_new_group", a_shared_root_belongs_to_a_new_group),
    ("files_are_bound", files_are_bound),
    ("a_bind_without_recursion_leaves_out_what_is_below", a_bind_without_recursion_leaves_out_what_is_below),
    ("ids_of_a_mount_are_mapped", ids_of_a_mount_are_mapped),
    ("a_relative_source_is_mapped", a_relative_source_is_mapped),
    ("ids_are_mapped_recursively", ids_are_mapped_recursively),
    ("mapping_without_any_mapping_is_refused", mapping_without_any_mapping_is_refused),
    ("one_mapping_without_the_other_is_refused", one_mapping_without_the_other_is_refused),
    ("a_tmpfs_has_what_was_below", a_tmpfs_has_what_was_below),
    ("masked_paths_cannot_be_read", masked_paths_cannot_be_read),
    ("read_only_paths_cannot_be_written", read_only_paths_cannot_be_written),
    ("masked_paths_must_be_absolute", masked_paths_must_be_absolute),
    ("the_cgroup_mount_shows_the_containers", the_cgroup_mount_shows_the_containers),
    ("a_missing_source_is_refused", a_missing_source_is_refused),
    ("an_unknown_file_system_is_refused", an_unknown_file_system_is_refused),
];

/// Mount point, options, optional fields without numbers, type, options of the file system, sorted by place.
const MOUNTS: &str = r"cut -d' ' -f 5- /proc/self/mountinfo |
    sed -E 's/(shared|master|propagate_from):[0-9]+/\1/g; s/,(inode64|nr_inodes=[0-9]+|uid=[0-9]+|gid=100000)//g'";

fn of(path: &str) -> String {
    format!("{MOUNTS} | grep '^{path} ' | tail -n 1 | sed 's/ - [^ ]* [^ ]*/ -/'")
}

/// Those of the configuration, without the root's own.
const DEFAULT_MOUNTS: &str = "/dev rw,nosuid
/dev/mqueue rw,nosuid,nodev,noexec,relatime
/dev/pts rw,nosuid,noexec,relatime
/dev/shm rw,nosuid,nodev,noexec,relatime
/notes rw,relatime
/proc rw,relatime
/sys ro,nosuid,nodev,noexec,relatime
/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime
/usr ro,relatime
";

fn the_default_mounts_are_there() {
    let script = format!("{MOUNTS} | cut -d' ' -f 1,2 | grep -v '^/proc/\\|^/sys/firmware\\|^/dev/console' | sort");
    let expected = format!("/ rw,relatime\n{DEFAULT_MOUNTS}");
    Bundle::new(&script).prints(&expected, &[(Crun, "forbids symbolic links below /sys/fs/cgroup")]);
}

fn the_default_mounts_of_a_user_namespace_are_there() {
    let script =
        format!("{MOUNTS} | cut -d' ' -f 1,2 | grep -v '^/ \\|^/proc/\\|^/sys/firmware\\|^/dev/[cfnrtuz]' | sort");
    Bundle::unprivileged(&script).prints(DEFAULT_MOUNTS, &[(Crun, "forbids symbolic links below /sys/fs/cgroup")]);
}

/// "If true then the root filesystem MUST be read-only inside the container".
fn the_root_is_read_only() {
    for bundle in [
        Bundle::new("touch /x 2>/dev/null || echo no; touch /dev/x && echo yes"),
        Bundle::unprivileged("touch /x 2>/dev/null || echo no; touch /dev/x && echo yes"),
    ] {
        bundle.set("/root/readonly", json!(true)).prints("no\nyes\n", &[]);
    }
}

/// "A directory MUST exist at the path declared by the field."
fn a_root_that_is_not_there_is_refused() {
    Bundle::new("true").set("/root/path", json!("nowhere")).is_refused(&[]);
    Bundle::new("true").prepare("touch file").set("/root/path", json!("file")).is_refused(&[]);
    Bundle::new("true").without("", "root").is_refused(&[]);
}

/// "The runtime MUST mount entries in the listed order."
fn mounts_come_in_their_order() {
    let bundle = Bundle::new("cat /data/file; cat /data/inner/file")
        .prepare("mkdir one two three three/inner; echo one >one/file; echo two >two/file; echo three >three/file");
    let bundle = bundle.mount("/data", "bind", "one", &["bind"]).mount("/data", "bind", "three", &["bind"]);
    bundle.mount("/data/inner", "bind", "two", &["bind"]).prints("three\ntwo\n", &[]);
}

/// "it MAY be a relative path, in which case it MUST be interpreted as relative to `/`".
fn a_relative_destination_is_below_the_root() {
    Bundle::new("ls /data")
        .prepare("mkdir data; touch data/x")
        .mount("data", "bind", "data", &["bind"])
        .prints("x\n", &[]);
}

fn a_relative_source_is_the_bundles() {
    Bundle::new("ls /data")
        .prepare("mkdir data; touch data/x")
        .mount("/data", "none", "./data", &["rbind"])
        .prints("x\n", &[]);
}

/// What `of("/data")` shows of a mount of the bundle's directory, which is on a tmpfs.
fn data(options: &str) -> String {
    format!("/data {options} - rw,mode=755\n")
}

fn options_of_the_mount() {
    for (options, shown) in [
        (&["bind", "ro"][..], "ro,relatime"),
        (&["bind", "nosuid", "nodev", "noexec"], "rw,nosuid,nodev,noexec,relatime"),
        (&["bind", "noatime"], "rw,noatime"),
        (&["bind", "relatime"], "rw,relatime"),
        (&["bind", "strictatime"], "rw"),
        (&["bind", "nodiratime"], "rw,nodiratime,relatime"),
        (&["bind", "nosymfollow"], "rw,relatime,nosymfollow"),
        (&["bind", "defaults"], "rw,relatime"),
        (
            &["bind", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"],
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
        ),
    ] {
        let bundle = Bundle::new(&of("/data")).prepare("mkdir data").mount("/data", "bind", "data", options);
        let differing: &[_] = match options[1] {
            "nosymfollow" => &[(Crun, "does not put nosymfollow in force")],
            "defaults" => &[(Runc, "does not know defaults, although runtimes MUST implement it")],
            _ => &[],
        };
        bundle.prints(&data(shown), differing);
    }
}

/// MS_REMOUNT: changes the mount that is there, and makes none.
fn a_mount_is_changed_by_remount() {
    let tmpfs = |bundle: Bundle| bundle.mount("/data", "tmpfs", "tmpfs", &["nosuid", "size=64k", "mode=755"]);
    let all =
        "grep ' /data ' /proc/self/mountinfo | cut -d ' ' -f 6-; touch /data/new 2>/dev/null && echo written; exit 0";
    let what_is_not_said = [Crun, Runc].map(|peer| (peer, "takes nosuid away, as mount(2) does"));
    let bundle = tmpfs(Bundle::new(all)).mount("/data", "tmpfs", "tmpfs", &["remount", "noexec", "size=128k"]);
    bundle.prints("rw,nosuid,noexec,relatime - tmpfs tmpfs rw,size=128k,mode=755\nwritten\n", &what_is_not_said);
    let bundle = tmpfs(Bundle::new(all)).mount("/data", "tmpfs", "tmpfs", &["remount", "nosuid", "ro"]);
    bundle.prints("ro,nosuid,relatime - tmpfs tmpfs rw,size=64k,mode=755\n", &[]);
    let bundle = tmpfs(Bundle::new(all)).mount("/data", "bind", "/data", &["bind", "remount", "nosuid", "ro"]);
    let source = [Crun, Runc].map(|peer| (peer, "wants a source of the host's that it does not use"));
    bundle.prints("ro,nosuid,relatime - tmpfs tmpfs rw,size=64k,mode=755\n", &source);
    let nothing = Bundle::new(all).prepare("mkdir rootfs/data");
    nothing.clone().mount("/data", "tmpfs", "tmpfs", &["remount", "ro"]).is_refused(&[]);
    nothing.mount("/nowhere", "tmpfs", "tmpfs", &["remount"]).is_refused(&[]);
}

fn the_later_of_two_options_wins() {
    let reason = "lets \"no\" win; mount(8) lets the later one";
    for options in [&["bind", "ro", "rw"][..], &["bind", "nosuid", "suid", "nodev", "dev", "noexec", "exec"]] {
        let bundle = Bundle::new(&of("/data")).prepare("mkdir data").mount("/data", "bind", "data", options);
        bundle.prints(&data("rw,relatime"), &[(Crun, reason)]);
    }
}

fn options_of_the_file_system() {
    for (options, shown) in [
        (&["size=64k", "mode=700"][..], "rw,relatime - rw,size=64k,mode=700"),
        (&["ro", "nosuid", "strictatime"], "ro,nosuid - rw"),
        (&["sync", "dirsync", "lazytime", "noexec"], "rw,noexec,relatime - rw,sync,dirsync,lazytime"),
        (&["async", "nolazytime", "loud", "iversion", "noiversion", "rw"], "rw,relatime - rw"),
        (&["noatime", "nodiratime", "nodev"], "rw,nodev,noatime,nodiratime - rw"),
        (&["nostrictatime", "norelatime", "diratime"], "rw,relatime - rw"),
    ] {
        let unknown = [(Crun, "hands iversion to the file system, although runtimes MUST implement it")];
        let differing = if options.contains(&"iversion") { &unknown[..] } else { &[] };
        let bundle = Bundle::new(&of("/data")).mount("/data", "tmpfs", "tmpfs", options);
        bundle.prints(&format!("/data {shown}\n"), differing);
    }
}

fn silent_is_taken() {
    let bundle = Bundle::new(&of("/data")).mount("/data", "tmpfs", "tmpfs", &["silent"]);
    let unknown = [(Crun, "hands it to the file system, although runtimes MUST implement it")];
    bundle.prints("/data rw,relatime - rw\n", &unknown);
}

fn a_read_only_tmpfs_takes_mounts_and_devices_first() {
    for bundle in [Bundle::new(""), Bundle::unprivileged("")] {
        let script = "touch /dev/x 2>/dev/null || echo no; touch /dev/shm/x && ls /dev/null && ls /dev/pts/ptmx";
        let bundle = bundle.set("/process/args", json!(["/bin/sh", "-c", script]));
        let bundle = bundle.set("/mounts/1/options", json!(["nosuid", "ro", "mode=755"]));
        bundle.prints("no\n/dev/null\n/dev/pts/ptmx\n", &[]);
    }
}

/// "Runtimes SHOULD treat unknown options as filesystem-specific ones".
fn an_unknown_option_is_the_file_systems() {
    Bundle::new("true").mount("/data", "tmpfs", "tmpfs", &["nosuchoption=3"]).is_refused(&[]);
    let script = "df --output=size /data | tail -n 1 | tr -d ' '";
    Bundle::new(script).mount("/data", "tmpfs", "tmpfs", &["size=4m"]).prints("4096\n", &[]);
}

fn recursive_options() {
    let wrong = [(Crun, "asks the kernel for access times that contradict each other, and does without nosymfollow")];
    for (option, shown) in [
        ("rro", "ro,relatime"),
        ("rnosuid", "rw,nosuid,relatime"),
        ("rnodev", "rw,nodev,relatime"),
        ("rnoexec", "rw,noexec,relatime"),
        ("rnoatime", "rw,noatime"),
        ("rnodiratime", "rw,nodiratime,relatime"),
        ("rnosymfollow", "rw,relatime,nosymfollow"),
        ("rstrictatime", "rw"),
    ] {
        let script = format!("{}; {}", of("/data"), of("/data/inner"));
        let differing = if option.contains("atime") || option == "rnosymfollow" { &wrong[..] } else { &[] };
        let bundle = Bundle::new(&script).mount("/data", "bind", "/tree", &["rbind", option]);
        bundle.prints(&format!("{}/data/inner {shown} - rw,mode=755\n", data(shown)), differing);
    }
}

fn propagation_of_a_mount() {
    let wrong = [(Crun, "makes the mount private again")];
    for (option, shown, differing) in [
        ("private", "rw,relatime", &[][..]),
        ("rprivate", "rw,relatime", &[]),
        ("slave", "rw,relatime", &[]),
        ("rslave", "rw,relatime", &[]),
        ("shared", "rw,relatime shared", &wrong),
        ("rshared", "rw,relatime shared", &wrong),
        ("unbindable", "rw,relatime unbindable", &wrong),
        ("runbindable", "rw,relatime unbindable", &wrong),
    ] {
        let bundle = Bundle::new(&of("/data")).prepare("mkdir data").mount("/data", "bind", "data", &["bind", option]);
        bundle.prints(&data(shown), differing);
    }
}

fn propagation_of_the_root() {
    for (value, shown) in [
        ("private", "rw,relatime"),
        ("slave", "rw,relatime"),
        ("unbindable", "rw,relatime unbindable"),
        ("rprivate", "rw,relatime"),
        ("rslave", "rw,relatime"),
    ] {
        let bundle = Bundle::new(&of("/")).set("/linux/rootfsPropagation", json!(value));
        bundle.prints(&format!("/ {shown} - rw,mode=755\n"), &[]);
    }
    Bundle::new("true")
        .set("/linux/rootfsPropagation", json!("sideways"))
        .is_refused(&[(Crun, "takes any word; values that are invalid MUST be an error")]);
}

fn a_shared_root_belongs_to_a_new_group() {
    let bundle = Bundle::new(&format!("{} | cut -d' ' -f 3", of("/"))).set("/linux/rootfsPropagation", json!("shared"));
    bundle.prints("shared\n", &[]);
}

fn files_are_bound() {
    let bundle = Bundle::new("cat /etc/deep/file; stat -c %F /etc/deep").prepare("echo content >file");
    bundle.mount("/etc/deep/file", "bind", "file", &["bind", "ro"]).prints("content\ndirectory\n", &[]);
}

fn a_bind_without_recursion_leaves_out_what_is_below() {
    for (option, text) in [
        (
            "bind", "without
",
        ),
        (
            "rbind", "with
",
        ),
    ] {
        let bundle = Bundle::new("grep -q ' /data/inner ' /proc/self/mountinfo && echo with || echo without");
        bundle.mount("/data", "bind", "/tree", &[option]).prints(text, &[]);
    }
}

fn ids_of_a_mount_are_mapped() {
    let prepare = "rm -rf /tmp/volume; mkdir /tmp/volume; touch /tmp/volume/x; chown 5:6 /tmp/volume/x";
    let bundle =
        Bundle::new("stat -c %u:%g /data/x").prepare(prepare).mount("/data", "bind", "/tmp/volume", &["bind", "idmap"]);
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let bundle = bundle.set(&format!("/mounts/{last}/uidMappings"), mapping.clone());
    bundle.set(&format!("/mounts/{last}/gidMappings"), mapping).prints("1005:1006\n", &[]);
    let bundle = Bundle::unprivileged("stat -c %u:%g /data/x").prepare(prepare);
    bundle.mount("/data", "bind", "/tmp/volume", &["bind", "idmap"]).prints("5:6\n", &[]);
}

fn a_relative_source_is_mapped() {
    let bundle = Bundle::unprivileged("stat -c %u:%g /data").prepare("mkdir data; chown 5:6 data");
    let bundle = bundle.mount("/data", "bind", "data", &["bind", "idmap"]);
    bundle.prints("5:6\n", &[(Crun, "does not find it: looks for it elsewhere than in the bundle")]);
}

fn ids_are_mapped_recursively() {
    let bundle = Bundle::new("stat -c %u /data /data/shm").mount("/data", "bind", "/tmp/below", &["rbind", "ridmap"]);
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let bundle = bundle.set(&format!("/mounts/{last}/uidMappings"), mapping.clone());
    let bundle = bundle.set(&format!("/mounts/{last}/gidMappings"), mapping);
    bundle.prepare("mkdir -p /tmp/below/shm; chown 1 /tmp/below; chown 2 /tmp/below/shm").prints("1001\n1002\n", &[]);
}

/// "If there are no `uidMappings` and `gidMappings` specified and the container isn't using user namespaces, an error
/// MUST be returned."
fn mapping_without_any_mapping_is_refused() {
    Bundle::new("true").prepare("mkdir data").mount("/data", "bind", "data", &["bind", "idmap"]).is_refused(&[]);
}

/// "If specified, it MUST be specified along with `gidMappings`."
fn one_mapping_without_the_other_is_refused() {
    let bundle = Bundle::new("true").prepare("mkdir data").mount("/data", "bind", "data", &["bind", "idmap"]);
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    bundle.set(&format!("/mounts/{last}/uidMappings"), mapping).is_refused(&[]);
}

fn a_tmpfs_has_what_was_below() {
    let prepare =
        "mkdir rootfs/data; echo content >rootfs/data/file; ln -s file rootfs/data/link; chmod 640 rootfs/data/file";
    let bundle = Bundle::new("cat /data/link; stat -c %a /data/file; rm /data/file").prepare(prepare);
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]).prints("content\n640\n", &[]);
}

fn masked_paths_cannot_be_read() {
    let script =
        "cat /secret/file 2>/dev/null; ls /secret; cat /file; echo x >/file; touch /secret/x 2>/dev/null || echo no";
    let prepare = "mkdir rootfs/secret; echo secret >rootfs/secret/file; echo secret >rootfs/file";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        let bundle = bundle.prepare(prepare).set("/linux/maskedPaths", json!(["/secret", "/file", "/not/there"]));
        bundle.prints("no\n", &[]);
    }
}

fn read_only_paths_cannot_be_written() {
    let script = "cat /kept/file; touch /kept/x 2>/dev/null || echo no; echo x 2>/dev/null >/proc/sys/kernel/hostname || echo no";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        let bundle = bundle.prepare("mkdir rootfs/kept; echo kept >rootfs/kept/file");
        bundle.set("/linux/readonlyPaths", json!(["/kept", "/proc/sys", "/not/there"])).prints("kept\nno\nno\n", &[]);
    }
}

/// "The values MUST be absolute paths in the container namespace."
fn masked_paths_must_be_absolute() {
    let reason = "takes it as relative to the root";
    Bundle::new("true").set("/linux/maskedPaths", json!(["proc/kcore"])).is_refused(&[(Crun, reason), (Runc, reason)]);
    Bundle::new("true").set("/linux/readonlyPaths", json!(["proc/bus"])).is_refused(&[(Crun, reason), (Runc, reason)]);
}

fn the_cgroup_mount_shows_the_containers() {
    let script = "cat /proc/self/cgroup | grep ^0; cat /sys/fs/cgroup/cgroup.procs | head -n 1";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        bundle.prints("0::/\n1\n", &[]);
    }
    Bundle::new("head -n 1 /sys/fs/cgroup/cgroup.procs")
        .sharing("cgroup")
        .prints("1\n", &[(Crun, "shows the host's whole tree; the specification does not say"), (Runc, "as crun")]);
}

fn a_missing_source_is_refused() {
    Bundle::new("true").mount("/data", "bind", "/no/such/source", &["bind"]).is_refused(&[]);
}

fn an_unknown_file_system_is_refused() {
    Bundle::new("true").mount("/data", "nosuchfs", "none", &[]).is_refused(&[]);
}
