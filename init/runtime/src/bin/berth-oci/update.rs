//! update: other limits for a container that is there.
//!
//! What a flag or a file does not say stays as it is; so a change is laid over what is in force, and then everything
//! of its topic is written: a period without its quota would mean something else.

use std::io::Read as _;
use std::path::Path;

use berth_runtime::spec::{BlockIo, Cpu, IntelRdt, Memory, Pids, Resources, Status};
use berth_runtime::{cgroup, resctrl};

use crate::arguments::Update;
use crate::cgroups::cgroup_of;
use crate::container::{Failure, during, parse};
use crate::store::Store;

pub fn update(store: &Store, options: &Update) -> Result<u8, Failure> {
    let mut record = store.load(&options.id)?;
    if store.status(&record) == Status::Stopped {
        return Err(Failure::NotRunning);
    }
    let change = match &options.resources {
        Some(path) => read_resources(path)?,
        None => from_options(options),
    };
    let path = cgroup_of(&record)?;
    let linux = record.spec.linux.get_or_insert_default();
    let mut all = linux.resources.clone().unwrap_or_default();
    let touched = lay_over(&mut all, change);
    cgroup::update(&path, &touched, &linux.devices)?;
    linux.resources = Some(all);
    if options.l3_cache_schema.is_some() || options.mem_bw_schema.is_some() {
        let rdt = linux.intel_rdt.as_mut().ok_or_else(|| Failure::Option {
            option: "--l3-cache-schema and --mem-bw-schema",
            must: "need linux.intelRdt in the container's config.json".to_owned(),
        })?;
        let change = |new: &Option<String>, old: &mut Option<String>| {
            new.iter().for_each(|new| *old = Some(new.clone()));
        };
        change(&options.l3_cache_schema, &mut rdt.l3_cache_schema);
        change(&options.mem_bw_schema, &mut rdt.mem_bw_schema);
        resctrl::update(&IntelRdt { schemata: Vec::new(), ..rdt.clone() }, &options.id)
            .map_err(berth_runtime::Error::from)?;
    }
    store.save(&record)?;
    Ok(0)
}

fn read_resources(path: &Path) -> Result<Resources, Failure> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(during("read", path))?;
    } else {
        text = std::fs::read(path).map_err(during("read", path))?;
    }
    parse(&text, path)
}

fn from_options(options: &Update) -> Resources {
    let memory = Memory {
        limit: options.memory,
        reservation: options.memory_reservation,
        swap: options.memory_swap,
        kernel: options.kernel_memory,
        kernel_tcp: options.kernel_memory_tcp,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: options.cpu_share,
        quota: options.cpu_quota,
        period: options.cpu_period,
        burst: options.cpu_burst,
        idle: options.cpu_idle,
        realtime_period: options.cpu_rt_period,
        realtime_runtime: options.cpu_rt_runtime,
        cpus: options.cpuset_cpus.clone(),
        mems: options.cpuset_mems.clone(),
    };
    let block_io = options.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() });
    Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: options.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io,
        ..Resources::default()
    }
}

/// Changes `all`; gives the topics that have changed, each as it is now.
fn lay_over(all: &mut Resources, change: Resources) -> Resources {
    fn over<T>(old: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *old = new;
        }
    }
    let mut touched = Resources::default();
    if let Some(new) = change.memory {
        let old = all.memory.get_or_insert_default();
        over(&mut old.limit, new.limit);
        over(&mut old.reservation, new.reservation);
        over(&mut old.swap, new.swap);
        over(&mut old.kernel, new.kernel);
        over(&mut old.kernel_tcp, new.kernel_tcp);
        over(&mut old.swappiness, new.swappiness);
        over(&mut old.disable_oom_killer, new.disable_oom_killer);
        over(&mut old.use_hierarchy, new.use_hierarchy);
        over(&mut old.check_before_update, new.check_before_update);
        touched.memory = Some(old.clone());
    }
    if let Some(new) = change.cpu {
        let old = all.cpu.get_or_insert_default();
        over(&mut old.shares, new.shares);
        over(&mut old.quota, new.quota);
        over(&mut old.burst, new.burst);
        over(&mut old.period, new.period);
        over(&mut old.realtime_runtime, new.realtime_runtime);
        over(&mut old.realtime_period, new.realtime_period);
        over(&mut old.cpus, new.cpus);
        over(&mut old.mems, new.mems);
        over(&mut old.idle, new.idle);
        touched.cpu = Some(old.clone());
    }
    touched.pids.clone_from(&change.pids);
    over(&mut all.pids, change.pids);
    touched.block_io.clone_from(&change.block_io);
    over(&mut all.block_io, change.block_io);
    for new in change.hugepage_limits {
        all.hugepage_limits.retain(|old| old.page_size != new.page_size);
        all.hugepage_limits.push(new.clone());
        touched.hugepage_limits.push(new);
    }
    touched.rdma.clone_from(&change.rdma);
    all.rdma.extend(change.rdma);
    touched.unified.clone_from(&change.unified);
    all.unified.extend(change.unified);
    if !change.devices.is_empty() {
        // Rules have an order, so a list is for the whole.
        touched.devices.clone_from(&change.devices);
        all.devices = change.devices;
    }
    touched
}

/// Bytes with or without a unit as `64m`; -1 is no limit.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a number of bytes, with or without b, k, m, g or t");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.iter().find_map(|(letter, shift)| Some((plain.strip_suffix(*letter)?, *shift)));
    let (digits, shift) = unit.unwrap_or((plain, 0));
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).and_then(|number| i64::try_from(number).ok()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use berth_runtime::spec::{DeviceRule, HugepageLimit};

    use super::*;

    #[test]
    fn bytes_have_units() {
        let cases =
            [("-1", -1), ("0", 0), ("64m", 64 << 20), ("1G", 1 << 30), ("5kb", 5120), ("2MiB", 2 << 20), ("7b", 7)];
        for (text, number) in cases {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "m", "-2", "1.5g", "9999999999999g", "1 m"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_change_does_not_say_stays() {
        let cpu = Cpu { quota: Some(5000), period: Some(10_000), shares: Some(7), ..Cpu::default() };
        let memory = Memory { limit: Some(1 << 20), ..Memory::default() };
        let mut all = Resources { cpu: Some(cpu), memory: Some(memory.clone()), ..Resources::default() };
        let change = Resources { cpu: Some(Cpu { quota: Some(6000), ..Cpu::default() }), ..Resources::default() };
        let touched = lay_over(&mut all, change);
        let expected = Cpu { quota: Some(6000), period: Some(10_000), shares: Some(7), ..Cpu::default() };
        assert_eq!((touched.cpu.as_ref(), touched.memory), (Some(&expected), None));
        assert_eq!((all.cpu, all.memory), (Some(expected), Some(memory)));
    }

    #[test]
    fn lists_are_replaced_by_their_keys_or_as_a_whole() {
        let limit = |page_size: &str, limit| HugepageLimit { page_size: page_size.into(), limit };
        let mut all = Resources { hugepage_limits: vec![limit("2MB", 1), limit("1GB", 2)], ..Resources::default() };
        let rule = DeviceRule { allow: true, ..DeviceRule::default() };
        let change =
            Resources { hugepage_limits: vec![limit("2MB", 3)], devices: vec![rule.clone()], ..Resources::default() };
        let touched = lay_over(&mut all, change);
        assert_eq!(all.hugepage_limits, [limit("1GB", 2), limit("2MB", 3)]);
        assert_eq!((touched.hugepage_limits.len(), touched.devices), (1, vec![rule]));
    }
}
