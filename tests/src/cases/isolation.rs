//! What a container sees and may do, read from inside.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "isolation/of-a-default-container", memory: 256, run: default_container },
    Case { name: "isolation/limits", memory: 256, run: limits },
    Case { name: "isolation/capabilities-as-configured", memory: 256, run: capabilities },
    Case { name: "isolation/loosened", memory: 256, run: loosened },
    Case { name: "isolation/mounts", memory: 256, run: mounts },
    Case { name: "isolation/of-two-that-share-a-volume", memory: 256, run: shared_volume },
];

/// Every namespace that a container has of its own.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Writes facts as `name=value` lines; a value has no line break.
const REPORT: &str = r#"
fact() { name=$1; shift; echo "$name=$("$@" 2>/dev/null | head -n 1)" >> /tmp/facts; }
can() { name=$1; shift; if "$@" > /dev/null 2>&1; then echo "$name=yes" >> /tmp/facts; else echo "$name=no" >> /tmp/facts; fi; }
status() { grep "^$1:" /proc/self/status | tr -s '\t ' ' ' ; }
for key in CapBnd CapEff CapPrm CapAmb Seccomp NoNewPrivs; do fact $key status $key; done
for name in cgroup ipc mnt net pid user uts; do fact ns_$name readlink /proc/self/ns/$name; done
fact pid echo $$
fact hostname hostname
fact uid_map cat /proc/self/uid_map
fact user id -u
fact memory cat /sys/fs/cgroup/memory.max
fact cpu cat /sys/fs/cgroup/cpu.max
fact pids cat /sys/fs/cgroup/pids.max
fact cgroup cat /proc/self/cgroup
fact open_files sh -c 'ulimit -n'
fact kcore sh -c 'head -c 1 /proc/kcore | wc -c'
fact keys sh -c 'head -c 1 /proc/keys | wc -c'
fact timers sh -c 'head -c 1 /proc/timer_list | wc -c'
fact firmware sh -c 'ls -A /sys/firmware | wc -l'
can write_sysctl sh -c 'echo 1 > /proc/sys/kernel/randomize_va_space'
can write_sysrq sh -c 'echo h > /proc/sysrq-trigger'
can write_sys sh -c 'echo 1 > /sys/kernel/uevent_seqnum'
can write_cgroup sh -c 'echo max > /sys/fs/cgroup/memory.max'
can write_root touch /written
can write_volume touch /volume/written
can write_read_only touch /read-only/written
can write_tmpfs touch /scratch/written
can make_device mknod /tmp/disk b 254 0
can mount_tmpfs mount -t tmpfs none /mnt
can see_disk test -e /dev/vda
can use_null sh -c 'echo x > /dev/null && head -c 8 /dev/urandom'
fact links sh -c 'ls /sys/class/net | wc -l'
fact dev_shm sh -c 'grep " /dev/shm " /proc/mounts'
echo done > /tmp/done
exec sleep 100000
"#;

/// Boots a machine whose only container, `a`, has `settings` and makes the report.
fn report(bench: &Bench, settings: &str) -> Result<(Machine, BTreeMap<String, String>)> {
    let archive = bench.shell_image("localhost/a:1", REPORT)?.docker_archive();
    let configuration = format!("[containers.a]\nimage = \"localhost/a:1\"\n{settings}");
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/tmp/done")?;
    let text = machine.guest.read_in("a", "/tmp/facts")?;
    let facts = text.lines().filter_map(|line| line.split_once('='));
    let facts = facts.map(|(name, value)| {
        let value = value.strip_prefix(&format!("{name}: ")).unwrap_or(value);
        (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    Ok((machine, facts.collect()))
}

fn expect(facts: &BTreeMap<String, String>, expected: &[(&str, &str)]) -> Result<()> {
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(name, value)| facts.get(*name).map(String::as_str) != Some(*value))
        .map(|(name, value)| format!("{name} is {:?}, not {value:?}", facts.get(*name)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// The namespaces of `facts` that are the machine's.
fn shared(machine: &mut Machine, facts: &BTreeMap<String, String>) -> Result<Vec<&'static str>> {
    let mut shared = Vec::new();
    for name in NAMESPACES {
        let host = machine.guest.shell(&format!("readlink /proc/1/ns/{name}"))?;
        let inside = facts.get(&format!("ns_{name}")).context("a namespace")?;
        ensure!(inside.starts_with(&format!("{name}:[")), "{name} is {inside:?}");
        if host.trim() == inside {
            shared.push(name);
        }
    }
    Ok(shared)
}

fn default_container(bench: &Bench) -> Result<()> {
    let (mut machine, facts) = report(bench, "")?;
    let shared = shared(&mut machine, &facts)?;
    ensure!(shared.is_empty(), "shared with the machine: {shared:?}");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP
    const DEFAULT: &str = "00000000800405fb";
    expect(
        &facts,
        &[
            ("CapBnd", DEFAULT),
            ("CapEff", DEFAULT),
            ("CapPrm", DEFAULT),
            ("CapAmb", "0000000000000000"),
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("pid", "1"),
            ("hostname", "a"),
            ("user", "0"),
            ("memory", "max"),
            ("cgroup", "0::/"),
            ("kcore", "0"),
            ("keys", "0"),
            ("timers", "0"),
            ("firmware", "0"),
            ("write_sysctl", "no"),
            ("write_sysrq", "no"),
            ("write_sys", "no"),
            ("write_cgroup", "no"),
            ("write_root", "yes"),
            ("make_device", "no"),
            ("mount_tmpfs", "no"),
            ("see_disk", "no"),
            ("use_null", "yes"),
        ],
    )?;
    let map: Vec<&str> = facts.get("uid_map").context("uid_map")?.split(' ').collect();
    let [inside, outside, count] = map.as_slice() else { anyhow::bail!("the map of user IDs is {map:?}") };
    ensure!(*inside == "0" && outside.parse::<u32>()? > 0 && count.parse::<u32>()? >= 65_536, "user IDs: {map:?}");
    let shm = facts.get("dev_shm").context("dev_shm")?;
    ensure!(shm.contains("size=65536k") && shm.contains("noexec"), "/dev/shm is {shm}");
    Ok(())
}

fn limits(bench: &Bench) -> Result<()> {
    let settings = "memory = \"64M\"\ncpus = 0.5\npids_limit = 50\nulimits = { nofile = 123 }\n";
    let (_machine, facts) = report(bench, settings)?;
    expect(
        &facts,
        &[("memory", "67108864"), ("cpu", "50000 100000"), ("pids", "50"), ("open_files", "123"), ("NoNewPrivs", "1")],
    )
}

fn capabilities(bench: &Bench) -> Result<()> {
    let settings = "cap_drop = [\"ALL\"]\ncap_add = [\"NET_BIND_SERVICE\", \"CHOWN\"]\n";
    let (_machine, facts) = report(bench, settings)?;
    let mask = "0000000000000401";
    expect(&facts, &[("CapBnd", mask), ("CapEff", mask), ("CapPrm", mask), ("Seccomp", "2")])
}

fn loosened(bench: &Bench) -> Result<()> {
    let settings = "network_mode = \"host\"\nuser = \"web\"\nhostname = \"other\"\n[containers.a.security]\n\
                    user_namespace = \"host\"\nseccomp = \"unconfined\"\nno_new_privileges = false\n";
    let (mut machine, facts) = report(bench, settings)?;
    let shared = shared(&mut machine, &facts)?;
    // The host name belongs to the network, as with docker's `--network host`; nobody but the machine sets it.
    ensure!(shared == ["net", "user", "uts"], "shared with the machine: {shared:?}");
    ensure!(machine.guest.shell("hostname")?.trim() != "other", "the container named the machine");
    let expected = [
        ("Seccomp", "0"),
        ("NoNewPrivs", "0"),
        ("user", "1000"),
        ("CapEff", "0000000000000000"),
        ("write_sysctl", "no"),
        ("kcore", "0"),
        ("make_device", "no"),
    ];
    expect(&facts, &expected)
}

/// Their users are others to the machine, and the same to the volume.
fn shared_volume(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let container = |name| format!("[containers.{name}]\nimage = \"localhost/a:1\"\nvolumes = [\"shared:/volume\"]\n");
    let configuration = ["a", "b"].map(container).concat();
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let mut inside = |name: &str, command: &str| machine.guest.shell(&format!("berth exec {name} {command}"));
    inside("a", "sh -c 'echo text > /volume/f && chown 1000:1001 /volume/f && chmod 600 /volume/f'")?;
    let maps = [inside("a", "cat /proc/self/uid_map")?, inside("b", "cat /proc/self/uid_map")?];
    ensure!(maps[0] != maps[1], "both have {}", maps[0]);
    for name in ["a", "b"] {
        let owner = inside(name, "stat -c %u:%g:%a /volume/f")?;
        ensure!(owner.trim() == "1000:1001:600", "{name} sees {owner}");
    }
    // Who it belongs to has it from either.
    let read = inside("-u 1000:1001 b", "cat /volume/f")?;
    ensure!(read == "text\n", "{read}");
    Ok(())
}

fn mounts(bench: &Bench) -> Result<()> {
    let settings = "read_only = true\nvolumes = [\"kept:/volume\", \"/etc:/read-only:ro\"]\n\
                    tmpfs = [\"/tmp\", \"/scratch:size=1M,mode=0700\"]\n";
    let (mut machine, facts) = report(bench, settings)?;
    let expected = [("write_root", "no"), ("write_volume", "yes"), ("write_read_only", "no"), ("write_tmpfs", "yes")];
    expect(&facts, &expected)?;
    machine.guest.shell("test -e /var/lib/berth/volumes/kept/written")?;
    let pid = machine.guest.container("a")?["pid"].clone();
    let mounts = machine.guest.read(&format!("/proc/{pid}/mounts"))?;
    let scratch = mounts.lines().find(|line| line.contains(" /scratch ")).context("the tmpfs is not mounted")?;
    ensure!(scratch.contains("size=1024k") && scratch.contains("mode=700"), "{scratch}");
    Ok(())
}
