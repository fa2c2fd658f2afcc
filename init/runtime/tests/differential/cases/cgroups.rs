//! `linux.cgroupsPath` and `linux.resources`, as far as this machine has the controllers.

use std::path::Path;

use serde_json::{Value, json};

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, Runtime, Tool, agree, by_commands, skip};

pub const CASES: &[Test] = &[
    ("an_absolute_path_is_below_the_mount", an_absolute_path_is_below_the_mount),
    ("the_same_path_is_the_same_place", the_same_path_is_the_same_place),
    ("a_cgroup_in_use_is_refused", a_cgroup_in_use_is_refused),
    ("a_path_that_leaves_the_mount_stays_in_it", a_path_that_leaves_the_mount_stays_in_it),
    ("the_limit_of_tasks", the_limit_of_tasks),
    ("memory", memory),
    ("processor_time", processor_time),
    ("processors", processors),
    ("huge_pages", huge_pages),
    ("block_devices", block_devices),
    ("weights_of_block_devices", weights_of_block_devices),
    ("rdma", rdma),
    ("unified_files_are_written", unified_files_are_written),
    ("a_file_that_the_runtime_does_not_know_is_written", a_file_that_the_runtime_does_not_know_is_written),
    ("a_controller_that_is_not_there_is_refused", a_controller_that_is_not_there_is_refused),
    ("what_version_2_cannot_do_is_refused", what_version_2_cannot_do_is_refused),
    ("a_memory_limit_below_use_is_refused_on_update", a_memory_limit_below_use_is_refused_on_update),
    ("the_cgroup_is_gone_with_the_container", the_cgroup_is_gone_with_the_container),
    ("a_writable_cgroup_belongs_to_the_user", a_writable_cgroup_belongs_to_the_user),
    ("a_burst_larger_than_the_quota_is_refused", a_burst_larger_than_the_quota_is_refused),
];

fn has(controller: &str) -> bool {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    text.split_whitespace().any(|name| name == controller)
}

/// What the files of a started container's cgroup say.
fn files(tool: &Tool, names: &[&str]) -> String {
    let created = tool.say(&["create", &tool.id]);
    if created.code != 0 {
        return "refused\n".to_owned();
    }
    let read = |name: &&str| {
        let text = std::fs::read_to_string(tool.cgroup().join(name)).unwrap_or("none".into());
        format!("{name} {}\n", text.trim_end())
    };
    names.iter().map(read).collect()
}

/// "the runtime MUST take the path to be relative to the cgroups mount point".
fn an_absolute_path_is_below_the_mount() {
    let bundle = Bundle::new("exec sleep 100").set("/linux/cgroupsPath", json!("/differential/inner"));
    by_commands(&bundle, "0::/differential/inner\n", &[], |tool| {
        tool.start();
        let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", tool.pid())).unwrap();
        let line = cgroup.lines().find(|line| line.starts_with("0::")).map(|line| format!("{line}\n"));
        let deleted = tool.say(&["delete", "--force", &tool.id]);
        assert!(deleted.code == 0 && !Path::new("/sys/fs/cgroup/differential/inner").exists());
        line.unwrap_or_default()
    });
    let _ = std::fs::remove_dir("/sys/fs/cgroup/differential");
}

/// "the runtime MUST consistently attach to the same place in the cgroups hierarchy given the same value".
fn the_same_path_is_the_same_place() {
    let bundle = Bundle::new("exec sleep 100").set("/linux/cgroupsPath", json!("relative-place"));
    let place = |tool: &Tool| {
        tool.start();
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", tool.pid())).unwrap();
        assert_eq!(tool.say(&["delete", "--force", &tool.id]).code, 0);
        text.lines().find(|line| line.starts_with("0::")).unwrap_or_default().to_owned()
    };
    by_commands(&bundle, "true", &[], |tool| (place(tool) == place(tool)).to_string());
}

/// A runtime MAY check whether the cgroup is fit, "and MUST generate an error if such a check fails".
fn a_cgroup_in_use_is_refused() {
    let bundle = Bundle::new("exec sleep 100").set("/linux/cgroupsPath", json!("/differential-shared"));
    agree(&bundle, "refused running", &[(Crun, "does not check")], |tool| {
        tool.start();
        let second = tool.another(&bundle);
        let code = second.say(&["create", &second.id]).code;
        drop(second);
        format!("{} {}", if code == 0 { "taken" } else { "refused" }, tool.status())
    });
}

fn a_path_that_leaves_the_mount_stays_in_it() {
    let outside = Path::new("/sys/fs/outside");
    for path in ["/../outside", "../../outside"] {
        let bundle = Bundle::new("true").set("/linux/cgroupsPath", json!(path));
        let cleaned = "takes the path without its dots; runtimes MAY";
        bundle.is_refused_by_commands(&[(Runc, cleaned)]);
        assert!(!outside.exists());
        let _ = std::fs::remove_dir("/sys/fs/cgroup/outside");
    }
}

fn the_limit_of_tasks() {
    for (limit, text) in [(33, "33"), (-1, "max"), (-7, "max")] {
        holds("pids", ("pids", json!({ "limit": limit })), &[("pids.max", text)], &[]);
    }
    // 0 is what callers write who want nothing: no limit, and no need for the controller.
    let bundle = Bundle::new("true").set("/linux/resources/pids", json!({ "limit": 0 }));
    agree(&bundle, "none\n", &[], |tool| files(tool, &["pids.max"]).replace("pids.max ", "").replace("max", "none"));
}

/// What is to be in the files where the machine has the controller; without it the limit is refused.
fn holds(controller: &str, resources: (&str, Value), expected: &[(&str, &str)], differing: &[(Runtime, &str)]) {
    let (pointer, value) = resources;
    let bundle = Bundle::new("true").set(&format!("/linux/resources/{pointer}"), value);
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let text: String = expected.iter().map(|(name, text)| format!("{name} {text}\n")).collect();
    let expected = if has(controller) { text.as_str() } else { "refused\n" };
    agree(&bundle, expected, differing, |tool| files(tool, &names));
}

fn memory() {
    let (small, large) = (8 << 20, 16 << 20);
    for (limit, reservation, swap, expected) in [
        (small, 4 << 20, large, ["8388608", "4194304", "8388608"]),
        (-1, -1, -1, ["max", "max", "max"]),
        (small, 0, small, ["8388608", "0", "0"]),
    ] {
        let values = json!({ "limit": limit, "reservation": reservation, "swap": swap });
        let [max, low, swap] = expected;
        let expected = [("memory.max", max), ("memory.low", low), ("memory.swap.max", swap)];
        holds("memory", ("memory", values), &expected, &[]);
    }
}

/// Shares to weights as crun and runc have it: 2 is 1, 1024 is 100, 262144 is 10000.
fn processor_time() {
    for (values, [weight, max, burst, idle]) in [
        (json!({ "shares": 1024 }), ["100", "max 100000", "0", "0"]),
        (json!({ "shares": 2048 }), ["174", "max 100000", "0", "0"]),
        (json!({ "quota": 50_000, "period": 200_000 }), ["100", "50000 200000", "0", "0"]),
        (json!({ "quota": -1, "period": 200_000 }), ["100", "max 200000", "0", "0"]),
        (json!({ "quota": 50_000, "burst": 20_000 }), ["100", "50000 100000", "20000", "0"]),
        (json!({ "shares": 2 }), ["1", "max 100000", "0", "0"]),
        (json!({ "shares": 262_144 }), ["10000", "max 100000", "0", "0"]),
    ] {
        let expected = [("cpu.weight", weight), ("cpu.max", max), ("cpu.max.burst", burst), ("cpu.idle", idle)];
        holds("cpu", ("cpu", values), &expected, &[]);
    }
    // What an idle cgroup's weight reads as is the kernel's affair.
    holds("cpu", ("cpu", json!({ "idle": 1 })), &[("cpu.max", "max 100000"), ("cpu.idle", "1")], &[]);
}

fn processors() {
    let values = json!({ "cpus": "0", "mems": "0" });
    holds("cpuset", ("cpu", values), &[("cpuset.cpus", "0"), ("cpuset.mems", "0")], &[]);
}

fn huge_pages() {
    let page_faults = [(Crun, "limits page faults only; reservations are to be limited where the kernel can")];
    let limits = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    let expected = [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")];
    holds("hugetlb", ("hugepageLimits", limits), &expected, &page_faults);
}

/// The number of one of the machine's disks.
fn disk() -> (u32, u32) {
    let disks = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let found = disks.filter(|disk| disk.join("device").exists()).find_map(|disk| {
        let text = std::fs::read_to_string(disk.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    found.unwrap_or((7, 0))
}

fn block_devices() {
    let (major, minor) = disk();
    let rate = |rate: u32| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let limits = json!({
        "throttleReadBpsDevice": rate(1_000_000), "throttleWriteBpsDevice": rate(2_000_000),
        "throttleReadIOPSDevice": rate(30), "throttleWriteIOPSDevice": rate(40),
    });
    let all = format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=30 wiops=40");
    holds("io", ("blockIO", limits), &[("io.max", &all)], &[]);
    let one = format!("{major}:{minor} rbps=1000000 wbps=max riops=max wiops=max");
    holds("io", ("blockIO", json!({ "throttleReadBpsDevice": rate(1_000_000) })), &[("io.max", &one)], &[]);
}

/// A weight of 10 to 1000 becomes one of 1 to 10000, as crun and runc have it; 500 is in the middle of both.
fn weights_of_block_devices() {
    let (major, minor) = disk();
    let device = json!([{ "major": major, "minor": minor, "weight": 1000 }]);
    holds("io", ("blockIO", json!({ "weight": 500 })), &[("io.weight", "default 4950")], &[]);
    // A weight for one device needs the kernel's cost model at work on it.
    let model = |enable: u32| std::fs::write("/sys/fs/cgroup/io.cost.qos", format!("{major}:{minor} enable={enable}"));
    let there = model(1).is_ok();
    assert!(there || !has("io"), "the kernel has no io.cost");
    let weights = format!("default 1\n{major}:{minor} 10000");
    let values = json!({ "weight": 10, "weightDevice": device });
    holds("io", ("blockIO", values), &[("io.weight", &weights)], &[]);
    if there {
        model(0).unwrap();
    }
}

fn rdma() {
    let limits = json!({ "nosuchdevice": { "hcaHandles": 3, "hcaObjects": 100 } });
    // The kernel knows no such device: what is asked for cannot be kept, with a controller or without.
    Bundle::new("true").set("/linux/resources/rdma", limits).is_refused(&[(Crun, "does without the controller")]);
    let everything = json!({ "rdma.max": "" });
    let nothing = [(Crun, "has nothing to write, and does not look for the file")];
    holds("rdma", ("unified", everything), &[("rdma.max", "")], if has("rdma") { &[] } else { &nothing });
}

/// "The OCI runtime MUST ensure that the needed cgroup controllers are enabled for the cgroup."
fn unified_files_are_written() {
    for (controller, file, value) in [
        ("pids", "pids.max", "44"),
        ("memory", "memory.high", "4194304"),
        ("memory", "memory.min", "1048576"),
        ("memory", "memory.oom.group", "1"),
        ("cpu", "cpu.weight.nice", "-5"),
    ] {
        holds(controller, ("unified", json!({ file: value })), &[(file, value)], &[]);
    }
    let high = ("unified", json!({ "memory.high": "8388608", "memory.min": "4096" }));
    holds("memory", high, &[("memory.high", "8388608"), ("memory.min", "4096")], &[]);
    let (major, minor) = disk();
    let target = format!("{major}:{minor} target=5000");
    holds("io", ("unified", json!({ "io.latency": target })), &[("io.latency", &target)], &[]);
    let bundle = Bundle::new("true")
        .set("/linux/resources/unified", json!({ "cgroup.max.depth": "3", "cgroup.max.descendants": "7" }));
    let expected = "cgroup.max.depth 3\ncgroup.max.descendants 7\n";
    agree(&bundle, expected, &[], |tool| files(tool, &["cgroup.max.depth", "cgroup.max.descendants"]));
}

/// "Configuration unknown to the runtime MUST still be written to the relevant file."
fn a_file_that_the_runtime_does_not_know_is_written() {
    let bundle = Bundle::new("true").set("/linux/resources/unified", json!({ "cgroup.pressure": "0" }));
    agree(&bundle, "cgroup.pressure 0\n", &[], |tool| files(tool, &["cgroup.pressure"]));
}

/// "The runtime MUST generate an error when the configuration refers to a cgroup controller that is not present".
fn a_controller_that_is_not_there_is_refused() {
    Bundle::new("true").set("/linux/resources/unified", json!({ "nosuch.max": "1" })).is_refused(&[]);
    if !has("rdma") {
        let bundle = Bundle::new("true").set("/linux/resources/unified", json!({ "rdma.max": "mlx hca_handle=3" }));
        bundle.is_refused(&[]);
    }
}

/// "If the conversion is not possible the runtime MUST generate an error."
fn what_version_2_cannot_do_is_refused() {
    let silent = "leaves it out in silence";
    for (pointer, value) in [
        ("/linux/resources/memory", json!({ "kernelTCP": 1_000_000 })),
        ("/linux/resources/memory", json!({ "swappiness": 50 })),
        ("/linux/resources/memory", json!({ "disableOOMKiller": true })),
        ("/linux/resources/cpu", json!({ "realtimeRuntime": 95_000, "realtimePeriod": 100_000 })),
        ("/linux/resources/network", json!({ "classID": 1 })),
    ] {
        Bundle::new("true").set(pointer, value).is_refused(&[(Runc, silent)]);
    }
}

/// `checkBeforeUpdate`: "MUST reject the new limit".
fn a_memory_limit_below_use_is_refused_on_update() {
    if !has("memory") {
        return skip("needs a memory controller");
    }
    let bundle = Bundle::new("exec sleep 100").set("/linux/resources/memory", json!({ "limit": 1 << 30 }));
    by_commands(&bundle, "refused", &[], |tool| {
        tool.start();
        let file = tool.bundle.join("resources.json");
        let limit = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
        std::fs::write(&file, limit.to_string()).unwrap();
        let said = tool.say(&["update", "-r", file.to_str().unwrap(), &tool.id]);
        if said.code == 0 { "taken".to_owned() } else { "refused".to_owned() }
    });
}

fn the_cgroup_is_gone_with_the_container() {
    agree(&Bundle::new("true"), "false", &[], |tool| {
        tool.run();
        tool.cgroup().exists().to_string()
    });
}

/// "Runtimes SHOULD change the cgroup ownership if and only if the cgroup filesystem is to be mounted read/write".
fn a_writable_cgroup_belongs_to_the_user() {
    let names = ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "cgroup.max.depth"];
    let owners = |tool: &Tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let uid = |name| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(tool.cgroup().join(name)).unwrap());
        names.map(|name| format!("{} ", uid(name))).concat()
    };
    let bundle = Bundle::unprivileged("true");
    agree(
        &bundle,
        "0 0 0 0 0 ",
        &[(Crun, "gives it away although it is mounted read-only; runtimes SHOULD NOT")],
        owners,
    );
    let writable = bundle.set("/mounts/6/options", json!(["nosuid", "noexec", "nodev", "relatime"]));
    agree(&writable, "100000 100000 100000 100000 0 ", &[(Runc, "leaves it to root; runtimes SHOULD")], owners);
}

/// "this value MUST be no larger than any positive `quota` (runtimes MAY generate an error)".
fn a_burst_larger_than_the_quota_is_refused() {
    let cpu = json!({ "quota": 10_000, "burst": 20_000, "period": 100_000 });
    Bundle::new("true").set("/linux/resources/cpu", cpu).is_refused(&[]);
}
