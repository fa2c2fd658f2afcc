//! From the specification's limits to the files of cgroup v2 and what to write into them. Pure.

use crate::spec::{BlockIo, Cpu, Memory, Resources};

/// Why a limit cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// cgroup v2 has nothing of the kind.
    #[error("linux.resources.{field} cannot be set with cgroup v2")]
    NotInV2 {
        /// The field.
        field: &'static str,
    },
    /// Outside what the field may be.
    #[error("linux.resources.{field} must be {must}, not {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it may be.
        must: &'static str,
        /// What it is.
        value: String,
    },
}

/// One file and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub file: String,
    pub value: String,
    /// Left out where the file is not there.
    pub optional: bool,
}

impl Setting {
    fn new(file: impl Into<String>, value: impl Into<String>) -> Self {
        Self { file: file.into(), value: value.into(), optional: false }
    }

    /// The controller that the file belongs to: what comes before the first dot.
    pub(crate) fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// What to write, in this order.
pub(crate) fn settings(resources: &Resources) -> Result<Vec<Setting>, LimitError> {
    let mut out = Vec::new();
    if let Some(memory) = &resources.memory {
        self::memory(memory, &mut out)?;
    }
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, &mut out)?;
    }
    // 0 is no wish: it is what callers write that have none (runc and crun do the same).
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit).filter(|limit| *limit != 0) {
        out.push(Setting::new("pids.max", if limit > 0 { limit.to_string() } else { "max".to_owned() }));
    }
    if let Some(block_io) = &resources.block_io {
        self::block_io(block_io, &mut out)?;
    }
    for limit in &resources.hugepage_limits {
        out.push(Setting::new(format!("hugetlb.{}.max", limit.page_size), limit.limit.to_string()));
        let reserved = format!("hugetlb.{}.rsvd.max", limit.page_size);
        out.push(Setting { optional: true, ..Setting::new(reserved, limit.limit.to_string()) });
    }
    if resources.network.as_ref().is_some_and(|network| network.class_id.is_some() || !network.priorities.is_empty()) {
        return Err(LimitError::NotInV2 { field: "network" });
    }
    for (device, limit) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let value =
            format!("{device}{}{}", part("hca_handle", limit.hca_handles), part("hca_object", limit.hca_objects));
        out.push(Setting::new("rdma.max", value));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.is_empty() {
            let must = "the name of a file of cgroup v2";
            return Err(LimitError::Value { field: "unified", must, value: file.clone() });
        }
        // Nothing to write still needs a file to write it to.
        let lines = if value.is_empty() { vec![""] } else { value.lines().collect() };
        out.extend(lines.into_iter().map(|line| Setting::new(file.clone(), line)));
    }
    Ok(out)
}

fn bytes(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn memory(memory: &Memory, out: &mut Vec<Setting>) -> Result<(), LimitError> {
    let unsupported = [("memory.kernel", memory.kernel), ("memory.kernelTCP", memory.kernel_tcp)];
    if let Some((field, _)) = unsupported.iter().find(|(_, value)| value.is_some_and(|value| value > 0)) {
        return Err(LimitError::NotInV2 { field });
    }
    if memory.swappiness.is_some() {
        return Err(LimitError::NotInV2 { field: "memory.swappiness" });
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(LimitError::NotInV2 { field: "memory.disableOOMKiller" });
    }
    if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
        let value = match memory.limit {
            _ if swap < 0 => "max".to_owned(),
            Some(limit) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => {
                let must = "memory and swap together, with memory.limit set and not larger";
                return Err(LimitError::Value { field: "memory.swap", must, value: swap.to_string() });
            }
        };
        // A kernel without swap has no file; then there is nothing to limit.
        out.push(Setting { optional: true, ..Setting::new("memory.swap.max", value) });
    }
    if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
        out.push(Setting::new("memory.max", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        out.push(Setting::new("memory.low", bytes(reservation)));
    }
    Ok(())
}

fn cpu(cpu: &Cpu, out: &mut Vec<Setting>) -> Result<(), LimitError> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0) || cpu.realtime_period.is_some_and(|value| value != 0) {
        return Err(LimitError::NotInV2 { field: "cpu.realtimeRuntime and cpu.realtimePeriod" });
    }
    if let Some(idle) = cpu.idle {
        out.push(Setting::new("cpu.idle", idle.to_string()));
    }
    // The kernel refuses a weight for an idle cgroup.
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && cpu.idle != Some(1)) {
        out.push(Setting::new("cpu.weight", weight_of_shares(shares).to_string()));
    }
    let burst = cpu.burst.map(|burst| Setting::new("cpu.max.burst", burst.to_string()));
    // A smaller burst must be written before a smaller quota, a larger one after a larger quota; at creation the
    // quota is unlimited, so it comes first.
    let quota = match (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0)) {
        (None, None) => None,
        (quota, period) => {
            let quota = quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            Some(Setting::new("cpu.max", format!("{quota} {}", period.unwrap_or(100_000))))
        }
    };
    out.extend(quota.into_iter().chain(burst));
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            out.push(Setting::new(file, list.clone()));
        }
    }
    Ok(())
}

/// From 2..=262144 (middle 1024) to 1..=10000 (middle 100), both ends and the middle exactly: the curve that runc and
/// crun have agreed on.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn block_io(block_io: &BlockIo, out: &mut Vec<Setting>) -> Result<(), LimitError> {
    let weight = |weight: u16| -> Result<u64, LimitError> {
        if (10..=1000).contains(&weight) {
            Ok(1 + (u64::from(weight) - 10) * 9999 / 990)
        } else {
            Err(LimitError::Value { field: "blockIO.weight", must: "from 10 to 1000", value: weight.to_string() })
        }
    };
    if block_io.leaf_weight.is_some_and(|weight| weight != 0) {
        return Err(LimitError::NotInV2 { field: "blockIO.leafWeight" });
    }
    if let Some(value) = block_io.weight.filter(|weight| *weight != 0) {
        out.push(Setting::new("io.weight", format!("default {}", weight(value)?)));
    }
    for device in &block_io.weight_device {
        if let Some(value) = device.weight {
            out.push(Setting::new("io.weight", format!("{}:{} {}", device.major, device.minor, weight(value)?)));
        }
    }
    let rates = [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ];
    for (name, devices) in rates {
        for device in devices {
            out.push(Setting::new("io.max", format!("{}:{} {name}={}", device.major, device.minor, device.rate)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::Pids;

    fn written(resources: &Resources) -> Vec<(String, String)> {
        settings(resources).unwrap().into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn ends_and_middle_of_the_shares_are_those_of_the_weight() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
    }

    #[test]
    fn swap_is_counted_without_memory() {
        let memory = Memory { limit: Some(100), swap: Some(150), ..Memory::default() };
        let resources = Resources { memory: Some(memory), ..Resources::default() };
        let expected =
            [("memory.swap.max", "50"), ("memory.max", "100")].map(|(file, value)| (file.into(), value.into()));
        assert_eq!(written(&resources), expected);
    }

    #[test]
    fn swap_below_memory_is_refused() {
        let memory = Memory { limit: Some(100), swap: Some(50), ..Memory::default() };
        let resources = Resources { memory: Some(memory), ..Resources::default() };
        assert!(matches!(settings(&resources), Err(LimitError::Value { field: "memory.swap", .. })));
    }

    #[test]
    fn a_quota_without_a_period_gets_the_usual_one() {
        let cpu = Cpu { quota: Some(150_000), ..Cpu::default() };
        let resources = Resources { cpu: Some(cpu), pids: Some(Pids { limit: Some(-1) }), ..Resources::default() };
        let expected =
            [("cpu.max", "150000 100000"), ("pids.max", "max")].map(|(file, value)| (file.into(), value.into()));
        assert_eq!(written(&resources), expected);
    }

    #[test]
    fn a_unified_key_cannot_leave_the_cgroup() {
        let unified = [("../memory.max".to_owned(), "1".to_owned())].into();
        assert!(settings(&Resources { unified, ..Resources::default() }).is_err());
    }

    proptest! {
        #[test]
        fn more_shares_never_give_less_weight(shares in 2_u64..262_144) {
            prop_assert!(weight_of_shares(shares) <= weight_of_shares(shares + 1));
            prop_assert!((1..=10_000).contains(&weight_of_shares(shares)));
        }
    }
}
