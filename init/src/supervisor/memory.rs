//! Who gets the machine's memory, processors and tasks, and who ends when there is not enough memory.
//!
//! ```text
//!  0                                   high                max            reserve   headroom      all memory
//!  ├──────── user containers ───────────┼──── slowed down ───┤─── system containers ─┤ kernel, PID 1 ┤
//! ```
//! The `user` tree can never have what is reserved for the `system` tree. Between `memory.high` and `memory.max` the
//! kernel slows its processes down, which wakes PID 1 ([`crate::pressure`]), and PID 1 ends one container: the one that
//! is furthest above its own `memory` limit, no limit counting as 0, so that who has a limit and keeps to it goes last. If PID 1 is
//! too slow, the kernel ends one at `memory.max`, as a whole (`memory.oom.group`), and it is a user container too.

use std::fs;
use std::path::Path;

use berth_control::message::Kind;

use super::Supervisor;
use super::container::Container;
use super::statistics::{number, value};

const SYSTEM_TREE: &str = "/sys/fs/cgroup/system";
const USER_TREE: &str = "/sys/fs/cgroup/user";

/// Where processors are short, system containers have ten times what the user tree has, whose weight is 100.
const SYSTEM_WEIGHT: u64 = 1000;

const MIB: u64 = 1 << 20;

/// A container that would free less than this is not worth its end, in bytes.
const WORTH: u64 = 4 * MIB;

/// How the machine's memory is divided, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    reserve: u64,
    user_high: u64,
    user_max: u64,
}

impl Division {
    /// Of this memory, if system containers are to have so much for sure. On the smallest machines they get a third.
    fn of(memory: Memory, wanted: u64) -> Self {
        let Memory { total, available } = memory;
        let reserve = wanted.min(total / 3);
        // For PID 1, the pages of the programs that all run, and what the kernel is going to take and does not count as
        // anybody's.
        let headroom = 16 * MIB + (total / 32).min(256 * MIB);
        let user_max = available.saturating_sub(reserve + headroom).max(total / 3);
        Self { reserve, user_high: user_max - (user_max / 8).min(512 * MIB), user_max }
    }
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    /// What programs can still get (proc_meminfo(5), MemAvailable).
    available: u64,
}

impl Memory {
    fn now() -> Result<Self, String> {
        let text = fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
        let read = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            let kibibytes: Option<u64> = line.split_whitespace().next().and_then(|word| word.parse().ok());
            kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| format!("/proc/meminfo has no {key}"))
        };
        Ok(Self { total: read("MemTotal:")?, available: read("MemAvailable:")? })
    }

    /// Whether there is so little left that who waits for memory waits for that. The kernel would end one of all
    /// processes soon, and does not know whose the open files are that take it.
    fn is_short(self) -> bool {
        self.available < (self.total / 10).min(256 * MIB)
    }
}

impl Supervisor {
    /// Keeps processors, tasks, and as much memory as their definitions ask for, for system containers. Says how much.
    pub fn reserve(&self) -> Result<String, String> {
        let asked = |container: &Container| container.system()?.memory.reserve.map(|size| size.bytes());
        let wanted = self.containers.values().filter_map(asked).sum();
        let division = Division::of(Memory::now()?, wanted);
        let mut settings = vec![
            (SYSTEM_TREE, "memory.min", division.reserve),
            (SYSTEM_TREE, "cpu.weight", SYSTEM_WEIGHT),
            (USER_TREE, "memory.high", division.user_high),
            (USER_TREE, "memory.max", division.user_max),
        ];
        settings.extend(most_user_tasks().map(|most| (USER_TREE, "pids.max", most)));
        for (tree, file, setting) in settings {
            let path = Path::new(tree).join(file);
            fs::write(&path, setting.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(format!(
            "{} MiB for system containers, {} MiB for user containers",
            division.reserve / MIB,
            division.user_max / MIB
        ))
    }

    /// User containers stand still for want of memory: ends one of them if that is because there is no more.
    pub fn relieve(&mut self) {
        let read = |file: &str| fs::read_to_string(Path::new(USER_TREE).join(file)).unwrap_or_default();
        let Some(high) = number(&read("memory.high")) else { return };
        let is_short_of_all = || Memory::now().is_ok_and(Memory::is_short);
        if !is_short(unreclaimable(Path::new(USER_TREE)), high) && !is_short_of_all() {
            // Somebody waits at a limit of its own, or for the disk.
            return;
        }
        let running =
            self.containers.values().filter(|container| container.kind() == Kind::User && container.pid().is_some());
        let used: Vec<Used> = running.map(Used::by).collect();
        if used.iter().any(|used| used.dying) {
            return; // what it frees may be enough
        }
        let Some(victim) = choose(&used).map(|victim| (victim.id, victim.bytes)) else { return };
        let Some(container) = self.containers.get_mut(victim.0) else { return };
        log::warn!(
            "container {} is killed: the machine runs out of memory, and it uses {} MiB",
            container.name,
            victim.1 / MIB
        );
        container.out_of_memory = Some(victim.1);
        self.kill_now(victim.0);
    }
}

/// What a container uses that nobody else can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    id: u32,
    bytes: u64,
    /// Its own limit, 0 without one.
    promised: u64,
    /// It has been killed already.
    dying: bool,
}

impl Used {
    fn by(container: &Container) -> Self {
        let promised = container.user().and_then(|user| user.memory).map_or(0, |size| size.bytes());
        let dying = container.out_of_memory.is_some();
        Self { id: container.id, bytes: unreclaimable(&container.cgroup), promised, dying }
    }
}

/// The one that is furthest above what it was promised; if all keep to that, the one that uses most.
fn choose(used: &[Used]) -> Option<&Used> {
    let worth = || used.iter().filter(|used| used.bytes >= WORTH);
    let above = |used: &&Used| used.bytes.saturating_sub(used.promised);
    worth().filter(|used| above(used) >= WORTH).max_by_key(above).or_else(|| worth().max_by_key(|used| used.bytes))
}

/// Whether so much of the tree's memory is in use for good that it is what everybody waits for.
fn is_short(used: u64, high: u64) -> bool {
    used >= high - high / 16
}

/// Memory of a cgroup without what the kernel can take back at once, which is files' content, in bytes.
fn unreclaimable(cgroup: &Path) -> u64 {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    let statistics = read("memory.stat");
    let reclaimable: u64 =
        ["inactive_file", "active_file", "slab_reclaimable"].iter().map(|key| value(&statistics, key)).sum();
    number(&read("memory.current")).unwrap_or_default().saturating_sub(reclaimable)
}

/// Three quarters of what the machine can have; the rest is for PID 1 and system containers.
fn most_user_tasks() -> Option<u64> {
    let limit = |file: &str| fs::read_to_string(file).ok().as_deref().and_then(number);
    let most = limit("/proc/sys/kernel/threads-max")?.min(limit("/proc/sys/kernel/pid_max")?);
    Some(most / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_containers_have_what_they_ask_for_and_user_containers_the_rest() {
        // What has been taken before is nobody's to have.
        let of = |total: u64, taken: u64| Division::of(Memory { total, available: total - taken }, 30 * MIB);
        let small = of(224 * MIB, 20 * MIB);
        assert_eq!((small.reserve, small.user_max), (30 * MIB, (224 - 20 - 30 - 16 - 7) * MIB));
        assert!(small.user_high < small.user_max);
        let tiny = of(60 * MIB, 15 * MIB);
        assert_eq!((tiny.reserve, tiny.user_max), (20 * MIB, 20 * MIB));
        let large = of(64 << 30, 100 * MIB);
        assert_eq!(large.user_max - large.user_high, 512 * MIB);
        assert_eq!((64 << 30) - large.user_max, (100 + 30 + 16 + 256) * MIB);
    }

    #[test]
    fn a_machine_without_memory_is_short_whoever_has_it() {
        let left = |total: u64, available: u64| Memory { total: total * MIB, available: available * MIB };
        assert!(left(237, 19).is_short() && !left(237, 30).is_short());
        assert!(!left(65_536, 300).is_short(), "more than a small machine has in all");
        let now = Memory::now().unwrap();
        assert!(now.available > 0 && now.available <= now.total);
    }

    #[test]
    fn who_is_furthest_above_its_promise_goes_first() {
        let used = |id, mebibytes: u64, promised: u64| Used {
            id,
            bytes: mebibytes * MIB,
            promised: promised * MIB,
            dying: false,
        };
        let chosen = |list: &[Used]| choose(list).map(|used| used.id);
        assert_eq!(chosen(&[used(1, 20, 0), used(2, 100, 128)]), Some(1), "one that keeps to its limit");
        assert_eq!(chosen(&[used(1, 20, 0), used(2, 100, 0)]), Some(2), "the larger one");
        assert_eq!(
            chosen(&[used(1, 2, 0), used(2, 100, 128), used(3, 60, 64)]),
            Some(2),
            "all keep to it, or are small"
        );
        assert_eq!(chosen(&[used(1, 2, 0)]), None, "nobody is worth it");
    }

    #[test]
    fn page_cache_is_no_shortage() {
        assert!(is_short(150 * MIB, 157 * MIB));
        assert!(!is_short(100 * MIB, 157 * MIB));
    }
}
