//! `linux.namespaces`, id mappings, names, clocks, sysctl.

use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, Tool, agree};

pub const CASES: &[Test] = &[
    ("new_namespaces_are_new", new_namespaces_are_new),
    ("namespaces_that_are_not_named_are_the_runtimes", namespaces_that_are_not_named_are_the_runtimes),
    ("a_namespace_is_joined_by_its_path", a_namespace_is_joined_by_its_path),
    ("a_path_of_another_kind_is_refused", a_path_of_another_kind_is_refused),
    ("a_path_that_is_no_namespace_is_refused", a_path_that_is_no_namespace_is_refused),
    ("a_kind_named_twice_is_refused", a_kind_named_twice_is_refused),
    ("an_unknown_kind_is_refused", an_unknown_kind_is_refused),
    ("ids_are_mapped", ids_are_mapped),
    ("mappings_without_a_user_namespace_are_refused", mappings_without_a_user_namespace_are_refused),
    ("host_and_domain_name_are_set", host_and_domain_name_are_set),
    ("a_host_name_without_its_namespace_is_refused", a_host_name_without_its_namespace_is_refused),
    ("clocks_have_their_offsets", clocks_have_their_offsets),
    ("offsets_without_a_time_namespace_are_refused", offsets_without_a_time_namespace_are_refused),
    ("sysctl_is_set", sysctl_is_set),
    ("a_sysctl_of_the_whole_machine_is_refused", a_sysctl_of_the_whole_machine_is_refused),
    ("the_loopback_is_up", the_loopback_is_up),
    ("the_first_process_is_number_one", the_first_process_is_number_one),
];

const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

/// Prints, for every kind, whether it is the test's own.
fn comparison() -> String {
    let one = |(kind, file): &(&str, &str)| {
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        format!(
            "[ \"$(readlink /proc/self/ns/{file})\" = '{}' ] && echo {kind} shared || echo {kind} new\n",
            own.display()
        )
    };
    KINDS.iter().map(one).collect()
}

fn answer(new: &[&str]) -> String {
    let one = |(kind, _): &(&str, &str)| format!("{kind} {}\n", if new.contains(kind) { "new" } else { "shared" });
    KINDS.iter().map(one).collect()
}

fn new_namespaces_are_new() {
    let mut bundle = Bundle::unprivileged(&comparison());
    bundle.namespaces().push(json!({ "type": "time" }));
    bundle.prints(&answer(&["pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time"]), &[]);
}

/// "If a namespace type is not specified in the `namespaces` array, the container MUST inherit the runtime namespace".
fn namespaces_that_are_not_named_are_the_runtimes() {
    let bundle = Bundle::new(&comparison()).sharing("uts").sharing("ipc").sharing("pid").without("", "hostname");
    bundle.prints(&answer(&["network", "mount", "cgroup"]), &[]);
    let bundle = Bundle::new(&comparison()).sharing("network").sharing("cgroup");
    bundle.prints(&answer(&["pid", "ipc", "uts", "mount"]), &[]);
}

/// One bundle's container runs while another joins one of its namespaces.
fn join(bundle: &Bundle, kind: &str, file: &str, script: &str) -> impl Fn(&Tool) -> String {
    join_with(&Bundle::new(script), bundle, kind, file)
}

fn join_with(second: &Bundle, first: &Bundle, kind: &str, file: &str) -> impl Fn(&Tool) -> String + use<> {
    let (kind, file, host, second) = (kind.to_owned(), file.to_owned(), first.clone(), second.clone());
    move |tool| {
        let first = tool.another(&host);
        first.start();
        let path = format!("/proc/{}/ns/{file}", first.pid());
        let mut second = second.clone();
        second.namespaces().retain(|namespace| namespace["type"] != kind.as_str());
        second.namespaces().push(json!({ "type": kind, "path": path }));
        let expected = std::fs::read_link(&path).unwrap().display().to_string();
        tool.another(&second).run().replace(&expected, "the same")
    }
}

/// "The runtime MUST place the container process in the namespace associated with that `path`."
fn a_namespace_is_joined_by_its_path() {
    let sleeper = Bundle::new("exec sleep 100");
    for (kind, file) in KINDS.iter().filter(|(kind, _)| !["mount", "user", "time", "pid"].contains(kind)) {
        let bundle = sleeper.clone().without("", "hostname");
        let script = format!("readlink /proc/self/ns/{file}");
        agree(&bundle, "the same\n", &[], join(&bundle, kind, file, &script));
    }
    agree(&sleeper, "other\n", &[], join(&sleeper, "pid", "pid", "[ $$ = 1 ] || echo other"));
    // From a user namespace of its own, which has no rights over the one that is joined.
    let mut unprivileged = Bundle::unprivileged("readlink /proc/self/ns/cgroup");
    unprivileged.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    agree(&sleeper, "the same\n", &[], join_with(&unprivileged, &sleeper, "cgroup", "cgroup"));
}

/// "The runtime MUST generate an error if `path` is not associated with a namespace of type `type`."
fn a_path_of_another_kind_is_refused() {
    let mut bundle = Bundle::new("true").sharing("network");
    bundle.namespaces().push(json!({ "type": "network", "path": "/proc/self/ns/ipc" }));
    bundle.is_refused(&[]);
}

fn a_path_that_is_no_namespace_is_refused() {
    for path in ["/etc", "/no/such/namespace"] {
        let mut bundle = Bundle::new("true").sharing("network");
        bundle.namespaces().push(json!({ "type": "network", "path": path }));
        bundle.is_refused(&[]);
    }
}

/// "If a `namespaces` field contains duplicated namespaces with same `type`, the runtime MUST generate an error."
fn a_kind_named_twice_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.namespaces().push(json!({ "type": "ipc" }));
    bundle.is_refused(&[]);
}

fn an_unknown_kind_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.namespaces().push(json!({ "type": "syslog" }));
    bundle.is_refused(&[]);
}

fn ids_are_mapped() {
    let mut bundle = Bundle::unprivileged("cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; id -g");
    let two = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 }, { "containerID": 10, "hostID": 200_000, "size": 5 },
    ]);
    bundle = bundle.set("/linux/uidMappings", two.clone()).set("/linux/gidMappings", two);
    bundle.prints(" 0 100000 10\n 10 200000 5\n 0 100000 10\n 10 200000 5\n0\n0\n", &[]);
}

fn mappings_without_a_user_namespace_are_refused() {
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let bundle = Bundle::new("true").set("/linux/uidMappings", mapping.clone()).set("/linux/gidMappings", mapping);
    let reason = "ignores them, and the program is the real root; the specification leaves it open";
    bundle.is_refused(&[(Crun, reason), (Runc, reason)]);
}

fn host_and_domain_name_are_set() {
    for bundle in [
        Bundle::new("hostname; cat /proc/sys/kernel/domainname"),
        Bundle::unprivileged("hostname; cat /proc/sys/kernel/domainname"),
    ] {
        let bundle = bundle.set("/hostname", json!("here")).set("/domainname", json!("example.test"));
        bundle.prints("here\nexample.test\n", &[]);
    }
}

fn a_host_name_without_its_namespace_is_refused() {
    Bundle::new("true").sharing("uts").is_refused(&[]);
}

fn clocks_have_their_offsets() {
    let script = "tr -s ' ' </proc/self/timens_offsets";
    let no_right = [(Crun, "writes the offsets with the rights of the new user namespace, which do not suffice")];
    for (mut bundle, differing) in [(Bundle::new(script), &[][..]), (Bundle::unprivileged(script), &no_right[..])] {
        bundle.namespaces().push(json!({ "type": "time" }));
        let offsets = json!({ "monotonic": { "secs": 172_800, "nanosecs": 5 }, "boottime": { "secs": 604_800 } });
        let bundle = bundle.set("/linux/timeOffsets", offsets);
        bundle.prints(
            "monotonic 172800 5
boottime 604800 0
",
            differing,
        );
    }
}

fn offsets_without_a_time_namespace_are_refused() {
    let bundle = Bundle::new("true").set("/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } }));
    bundle.is_refused(&[]);
}

fn sysctl_is_set() {
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        let values = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "65536", "fs.mqueue.msg_max": "33" });
        bundle.set("/linux/sysctl", values).prints("1\n65536\n33\n", &[]);
    }
    let bundle = Bundle::new("cat /proc/sys/net/ipv4/conf/lo/forwarding");
    bundle.set("/linux/sysctl", json!({ "net/ipv4/conf/lo/forwarding": "1" })).prints("1\n", &[]);
}

/// It would change the host's.
fn a_sysctl_of_the_whole_machine_is_refused() {
    for (key, shared) in [("vm.swappiness", "none"), ("net.ipv4.ip_forward", "network"), ("kernel.shmmax", "ipc")] {
        let bundle = Bundle::new("true").sharing(shared).set("/linux/sysctl", json!({ key: "60" }));
        bundle.is_refused(&[]);
    }
}

fn the_loopback_is_up() {
    for bundle in [Bundle::new("cat /sys/class/net/lo/flags"), Bundle::unprivileged("cat /sys/class/net/lo/flags")] {
        bundle.prints("0x9\n", &[]);
    }
}

fn the_first_process_is_number_one() {
    Bundle::new("echo $$ /proc/[0-9]*").prints("1 /proc/1\n", &[]);
}
