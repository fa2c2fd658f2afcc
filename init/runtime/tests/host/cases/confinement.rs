//! What the program may do: capabilities, filter, limits, devices, paths.

use berth_runtime::spec::{Capabilities, HugepageLimit, IntelRdt, Memory, ResourceLimit};

use super::Test;
use crate::container::Case;

pub const CASES: &[Test] = &[
    ("five_sets_of_capabilities_are_as_configured", five_sets_of_capabilities_are_as_configured),
    ("without_capabilities_there_are_none", without_capabilities_there_are_none),
    ("user_groups_and_mask_are_as_configured", user_groups_and_mask_are_as_configured),
    ("the_default_filter_is_in_force", the_default_filter_is_in_force),
    ("a_filter_works_without_no_new_privileges", a_filter_works_without_no_new_privileges),
    ("resource_limits_are_set", resource_limits_are_set),
    ("a_cgroup_limit_is_set", a_cgroup_limit_is_set),
    ("a_limit_without_its_controller_is_an_error", a_limit_without_its_controller_is_an_error),
    ("devices_work_and_others_do_not", devices_work_and_others_do_not),
    ("paths_are_masked_and_read_only", paths_are_masked_and_read_only),
    ("a_masked_null_device_of_the_image_is_not_used", a_masked_null_device_of_the_image_is_not_used),
    ("sysctl_is_the_containers", sysctl_is_the_containers),
    ("the_keyring_is_its_own", the_keyring_is_its_own),
    ("what_the_kernel_does_not_have_is_refused_by_its_field", what_the_kernel_does_not_have_is_refused_by_its_field),
    ("the_loopback_of_a_new_network_namespace_is_up", the_loopback_of_a_new_network_namespace_is_up),
];

fn set(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn five_sets_of_capabilities_are_as_configured() {
    for mut case in [Case::new("grep Cap /proc/self/status"), Case::unprivileged("grep Cap /proc/self/status")] {
        case.process().capabilities = Some(Capabilities {
            bounding: set(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            effective: set(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            permitted: set(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            inheritable: set(&["CAP_KILL"]),
            ambient: set(&["CAP_KILL"]),
        });
        // Not root, so that only the ambient capability survives the exec.
        case.process().user.uid = 33;
        case.process().user.gid = 33;
        let output = case.run().output;
        let value = |name: &str| {
            let line = output.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        let kill = 1 << 5;
        let all = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(value);
        assert_eq!(all, [kill, kill, kill, 1 | kill | 1 << 10, kill]);
    }
}

fn without_capabilities_there_are_none() {
    let mut case = Case::unprivileged("grep Cap /proc/self/status");
    case.process().capabilities = None;
    let output = case.run().output;
    assert_eq!(output.matches("0000000000000000").count(), 5, "{output}");
}

fn user_groups_and_mask_are_as_configured() {
    for mut case in [Case::new("id -u; id -g; id -G; umask"), Case::unprivileged("id -u; id -g; id -G; umask")] {
        let user = &mut case.process().user;
        (user.uid, user.gid, user.umask, user.additional_gids) = (33, 44, Some(0o27), vec![5, 6]);
        assert_eq!(case.run().output, "33\n44\n44 5 6\n0027\n");
    }
}

fn the_default_filter_is_in_force() {
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare -U true && echo unshared; mount -t tmpfs none /sys";
    for mut case in [Case::new(script), Case::unprivileged(script)] {
        case.process().no_new_privileges = true;
        case.linux().seccomp = Some(berth_runtime::seccomp::default_profile(&[]));
        let output = case.run().output;
        assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
        assert!(!output.contains("unshared"), "{output}");
        assert!(output.contains("Operation not permitted") || output.contains("permission denied"), "{output}");
    }
}

fn a_filter_works_without_no_new_privileges() {
    let mut case = Case::new("grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status");
    case.process().capabilities = None;
    case.process().user.uid = 33;
    case.linux().seccomp = Some(berth_runtime::seccomp::default_profile(&[]));
    let output = case.run().output;
    assert!(output.contains("NoNewPrivs:\t0") && output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("CapEff:\t0000000000000000"), "{output}");
}

fn resource_limits_are_set() {
    let mut case = Case::unprivileged("ulimit -Sn; ulimit -Hn");
    case.process().rlimits = vec![ResourceLimit { kind: "RLIMIT_NOFILE".into(), soft: 128, hard: 256 }];
    assert_eq!(case.run().output, "128\n256\n");
}

fn a_cgroup_limit_is_set() {
    let mut case = Case::new("cat /sys/fs/cgroup/hugetlb.2MB.max; cat /proc/self/cgroup");
    case.resources().hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
    let output = case.run().output;
    assert!(output.starts_with("4194304\n") && output.ends_with("\n0::/\n"), "{output}");
}

fn a_limit_without_its_controller_is_an_error() {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    if controllers.contains("memory") {
        print!("(the memory controller is there: nothing to see) ");
        return;
    }
    let mut case = Case::new("true");
    case.resources().memory = Some(Memory { limit: Some(1 << 26), ..Memory::default() });
    let text = case.fails();
    assert!(text.contains("memory.max") && text.contains("cgroup controller memory"), "{text}");
}

fn devices_work_and_others_do_not() {
    let script = "
        echo gone > /dev/null && head -c 3 /dev/zero | od -An -tx1 && head -c 1 /dev/urandom | wc -c
        ls -l /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx | sed 's/.*-> //'
        stat -c '%a %t:%T' /dev/null
        mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; true";
    for mut case in [Case::new(script), Case::unprivileged(script)] {
        case.resources();
        case.spec.mounts.push(berth_runtime::spec::Mount {
            destination: "/tmp".into(),
            kind: Some("tmpfs".into()),
            ..Default::default()
        });
        let output = case.run().output;
        let expected =
            " 00 00 00\n1\n/proc/self/fd\npts/ptmx\n/proc/self/fd/2\n/proc/self/fd/0\n/proc/self/fd/1\n666 1:3\n";
        assert!(output.starts_with(expected), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
    }
}

fn paths_are_masked_and_read_only() {
    let script = "
        wc -c < /proc/timer_list; ls /secrets /proc/tty; stat -c %t:%T /proc/timer_list
        echo 1 > /proc/sys/kernel/ns_last_pid; touch /secrets/new; echo > /proc/timer_list && echo written";
    for mut case in [Case::new(script), Case::unprivileged(script)] {
        std::fs::create_dir(case.root().join("secrets")).unwrap();
        std::fs::write(case.root().join("secrets/key"), "secret").unwrap();
        case.linux().masked_paths = ["/proc/timer_list", "/secrets", "/proc/tty", "/not/there"].map(Into::into).into();
        case.linux().readonly_paths = ["/proc/sys", "/neither"].map(Into::into).into();
        let output = case.run().output;
        assert!(output.starts_with("0\n"), "{output}");
        assert!(!output.contains("key") && !output.contains("drivers") && output.contains("1:3"), "{output}");
        assert!(output.contains("written") && output.matches("Read-only file system").count() == 2, "{output}");
    }
}

/// CVE-2025-31133: a null device that the image provides as a link to what it wants mounted.
fn a_masked_null_device_of_the_image_is_not_used() {
    let mut case = Case::new("cat /proc/timer_list; echo; cat /hidden");
    case.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    std::fs::create_dir(case.root().join("dev")).unwrap();
    std::fs::write(case.root().join("secret"), "secret").unwrap();
    std::fs::write(case.root().join("hidden"), "hidden").unwrap();
    std::os::unix::fs::symlink("/secret", case.root().join("dev/null")).unwrap();
    case.linux().masked_paths = vec!["/hidden".into(), "/proc/timer_list".into()];
    assert_eq!(case.run().output, "\n");
}

fn sysctl_is_the_containers() {
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
    for mut case in [Case::new(script), Case::unprivileged(script)] {
        case.linux().sysctl = [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "8888")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
        assert_eq!(case.run().output, "1\n8888\n");
    }
}

fn the_keyring_is_its_own() {
    let output = Case::new("cat /proc/keys").run().output;
    assert!(output.contains("_ses.test"), "{output}");
}

fn the_loopback_of_a_new_network_namespace_is_up() {
    for case in [Case::new("cat /sys/class/net/lo/flags"), Case::unprivileged("cat /sys/class/net/lo/flags")] {
        // IFF_UP and IFF_LOOPBACK: netdevice(7).
        assert_eq!(case.run().output.trim(), "0x9");
    }
}

fn what_the_kernel_does_not_have_is_refused_by_its_field() {
    type Change = fn(&mut Case);
    let changes: [(&str, &str, Change); 4] = [
        ("/sys/module/apparmor", "process.apparmorProfile needs AppArmor", |case| {
            case.process().apparmor_profile = Some("web".into());
        }),
        ("/sys/fs/selinux", "process.selinuxLabel needs SELinux", |case| {
            case.process().selinux_label = Some("a:b:c".into());
        }),
        ("/sys/fs/selinux", "linux.mountLabel needs SELinux", |case| case.linux().mount_label = Some("a:b:c".into())),
        ("/sys/fs/resctrl", "linux.intelRdt needs a mounted resctrl", |case| {
            case.linux().intel_rdt = Some(IntelRdt::default());
        }),
    ];
    for (sign, expected, change) in changes {
        if std::path::Path::new(sign).exists() {
            print!("(the kernel has {sign}: nothing to see) ");
            continue;
        }
        let mut case = Case::new("true");
        change(&mut case);
        let text = case.fails();
        assert!(text.contains(expected), "{text}");
    }
}
