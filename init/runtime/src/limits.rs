//! What a process gets: resource limits, scheduling, I/O priority, personality, memory policy.

use crate::capabilities;
use crate::error::{Context, Error, Step, SystemError};
use crate::spec::{IoPriority, MemoryPolicy, Personality, Process, ResourceLimit, Scheduler};
use crate::sys::limits::{self as sys, SchedulerAttributes};
use crate::sys::privileges;

/// Names and numbers of asm-generic/resource.h; the same on x86 and ARM.
const RESOURCES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// The number of a resource.
pub(crate) fn resource(name: &str) -> Option<u32> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Limits another process, before it runs its program.
pub(crate) fn apply(pid: i32, limits: &[ResourceLimit]) -> Result<(), SystemError> {
    for limit in limits {
        let number = resource(&limit.kind).unwrap_or(u32::MAX);
        sys::set_limit(pid, number, limit.soft, limit.hard)
            .context("prlimit", || format!("{} to {}:{}", limit.kind, limit.soft, limit.hard))?;
    }
    Ok(())
}

/// Lowers limits, and raises a score of the OOM killer, to what the calling process can give: without CAP_SYS_RESOURCE,
/// as in most containers, the kernel gives nobody more than the giver has (prlimit(2), proc_pid_oom_score_adj(5)).
/// For those who would rather run a process with less than not at all; what cannot be found out stays as it is.
pub fn keep_within_reach(process: &mut Process) {
    if privileges::permitted_capabilities().is_ok_and(|held| held & capabilities::SYS_RESOURCE == 0) {
        let own_score =
            std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
        let own_limit = |kind: &str| resource(kind).and_then(|number| sys::hard_limit(number).ok());
        lower(process, own_score, own_limit);
    }
}

fn lower(process: &mut Process, own_score: Option<i32>, own_limit: impl Fn(&str) -> Option<u64>) {
    for limit in &mut process.rlimits {
        limit.hard = limit.hard.min(own_limit(&limit.kind).unwrap_or(u64::MAX));
        limit.soft = limit.soft.min(limit.hard);
    }
    process.oom_score_adj = process.oom_score_adj.map(|score| score.max(own_score.unwrap_or(score)));
}

/// Scheduling and I/O priority of the thread `pid`, 0 for the caller. Better than usual takes the host's privileges.
pub(crate) fn prioritize(pid: i32, process: &Process) -> Result<(), Error> {
    if let Some(scheduler) = &process.scheduler {
        schedule(pid, scheduler).step("set the scheduler")?;
    }
    if let Some(priority) = &process.io_priority {
        prioritize_io(pid, priority).step("set the I/O priority")?;
    }
    Ok(())
}

/// Keeps the calling thread on some processors; a list as `0-3,7`.
pub(crate) fn pin(list: &str) -> Result<(), Error> {
    let mask = bit_list(list).filter(|mask| mask.iter().any(|word| *word != 0)).ok_or_else(|| {
        Error::configuration("process.execCPUAffinity", format!("must be a list as 0-3,7, not {list}"))
    })?;
    let mut set = rustix::thread::CpuSet::new();
    for (position, word) in mask.iter().enumerate() {
        for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
            let cpu = position * 64 + bit;
            if cpu < rustix::thread::CpuSet::MAX_CPU {
                set.set(cpu);
            }
        }
    }
    Ok(rustix::thread::sched_setaffinity(None, &set).on("sched_setaffinity", list)?)
}

/// See sched(7) for the numbers.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

fn schedule(pid: i32, scheduler: &Scheduler) -> Result<(), Error> {
    let policy = find(&POLICIES, &scheduler.policy, "process.scheduler.policy")?;
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= find(&SCHEDULER_FLAGS, flag, "process.scheduler.flags")?;
    }
    let attributes = SchedulerAttributes {
        policy,
        flags,
        nice: scheduler.nice.unwrap_or_default(),
        priority: u32::try_from(scheduler.priority.unwrap_or_default()).unwrap_or_default(),
        runtime: scheduler.runtime.unwrap_or_default(),
        deadline: scheduler.deadline.unwrap_or_default(),
        period: scheduler.period.unwrap_or_default(),
        ..SchedulerAttributes::default()
    };
    Ok(sys::set_scheduler(pid, attributes).on("sched_setattr", &scheduler.policy)?)
}

fn prioritize_io(pid: i32, priority: &IoPriority) -> Result<(), Error> {
    let classes = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    let class = find(&classes, &priority.class, "process.ioPriority.class")?;
    let level = u32::try_from(priority.priority)
        .ok()
        .filter(|level| *level < 8)
        .ok_or_else(|| Error::configuration("process.ioPriority.priority", "must be from 0 to 7"))?;
    Ok(sys::set_io_priority(pid, class, level).on("ioprio_set", &priority.class)?)
}

/// Sets the execution domain of the calling process.
pub(crate) fn personality(personality: &Personality) -> Result<(), Error> {
    if !personality.flags.is_empty() {
        return Err(Error::configuration("linux.personality.flags", "must be empty: none are supported"));
    }
    let domain = find(&[("LINUX", 0), ("LINUX32", 8)], &personality.domain, "linux.personality.domain")?;
    Ok(sys::set_personality(domain).on("personality", &personality.domain)?)
}

/// Numbers of linux/mempolicy.h.
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// Modes and flags of `linux.memoryPolicy`, for `features`.
#[must_use]
pub fn known_memory_policies() -> (Vec<&'static str>, Vec<&'static str>) {
    (MEMORY_MODES.map(|(name, _)| name).to_vec(), MEMORY_FLAGS.map(|(name, _)| name).to_vec())
}

/// Sets the NUMA policy of the calling process.
pub(crate) fn memory_policy(policy: &MemoryPolicy) -> Result<(), Error> {
    let mut mode: u32 = find(&MEMORY_MODES, &policy.mode, "linux.memoryPolicy.mode")?;
    for flag in &policy.flags {
        mode |= find(&MEMORY_FLAGS, flag, "linux.memoryPolicy.flags")?;
    }
    let nodes = bit_list(&policy.nodes)
        .ok_or_else(|| Error::configuration("linux.memoryPolicy.nodes", "must be a list as 0-3,7"))?;
    Ok(sys::set_memory_policy(mode, &nodes).on("set_mempolicy", &policy.mode)?)
}

fn find<T: Copy>(table: &[(&str, T)], name: &str, field: &str) -> Result<T, Error> {
    let found = table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| Error::configuration(field, format!("is not known: {name:?}")))
}

/// A list as `0-3,7` as a bit mask; numbers up to 4095.
pub(crate) fn bit_list(list: &str) -> Option<Vec<u64>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 4095 {
            return None;
        }
        for bit in first..=last {
            if mask.len() <= bit / 64 {
                mask.resize(bit / 64 + 1, 0);
            }
            *mask.get_mut(bit / 64)? |= 1_u64 << (bit % 64);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_score_stay_within_what_the_giver_has() {
        let limit = |soft, hard| ResourceLimit { kind: "RLIMIT_NOFILE".to_owned(), hard, soft };
        let wanted = |limit, score| Process { rlimits: vec![limit], oom_score_adj: score, ..Process::default() };
        let mut process = wanted(limit(65_536, 524_288), Some(-900));
        lower(&mut process, Some(0), |_| Some(20_000));
        assert_eq!((&process.rlimits[0], process.oom_score_adj), (&limit(20_000, 20_000), Some(0)));
        let mut process = wanted(limit(1024, 4096), Some(500));
        lower(&mut process, Some(0), |_| Some(20_000));
        assert_eq!((&process.rlimits[0], process.oom_score_adj), (&limit(1024, 4096), Some(500)));
        let mut process = wanted(limit(1, u64::MAX), None);
        lower(&mut process, Some(0), |_| None);
        assert_eq!((&process.rlimits[0], process.oom_score_adj), (&limit(1, u64::MAX), None));
    }

    #[test]
    fn a_list_becomes_a_mask() {
        assert_eq!(bit_list("0-2, 65"), Some(vec![0b111, 0b10]));
        assert_eq!(bit_list(""), Some(vec![]));
        assert_eq!(bit_list("3-1"), None);
        assert_eq!(bit_list("x"), None);
    }
}
