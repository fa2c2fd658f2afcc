//! Changing the limits of a container that is there.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::limits::{self, Setting};
use super::{CgroupError, LimitError, apply, devices, enable, read, root_of};
use crate::error::Context;
use crate::spec::{Device, Resources};

/// Writes limits into an existing cgroup. Device rules, if there are any, take the place of those in force;
/// `device_nodes` are the container's, allowed besides.
pub fn update(path: &Path, resources: &Resources, device_nodes: &[Device]) -> Result<(), CgroupError> {
    let mut settings = limits::settings(resources)?;
    check_usage(path, resources)?;
    let root = root_of(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).context("open", || path.display().to_string())?;
    enable(&root, path, &settings)?;
    make_room_for_quota(&mut settings);
    apply(directory.as_fd(), path, &settings)?;
    if !resources.devices.is_empty() {
        devices::replace(directory.as_fd(), path, &resources.devices, device_nodes)?;
    }
    Ok(())
}

/// The kernel refuses a quota below the burst in force, and a burst above the quota: without a burst in between, both
/// can go either way.
fn make_room_for_quota(settings: &mut Vec<Setting>) {
    let position = |file: &str| settings.iter().position(|setting| setting.file == file);
    if let (Some(quota), Some(_)) = (position("cpu.max"), position("cpu.max.burst")) {
        let none = Setting { file: "cpu.max.burst".to_owned(), value: "0".to_owned(), optional: false };
        settings.insert(quota, none);
    }
}

/// `checkBeforeUpdate`: with cgroup v2 a limit below what is in use ends in the OOM killer.
fn check_usage(path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    let Some(memory) = resources.memory.as_ref().filter(|memory| memory.check_before_update == Some(true)) else {
        return Ok(());
    };
    let Some(limit) = memory.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0) else {
        return Ok(());
    };
    let usage: u64 = read(&path.join("memory.current"))?.trim().parse().unwrap_or_default();
    if usage > limit {
        let must = "at least what is in use, with memory.checkBeforeUpdate";
        return Err(
            LimitError::Value { field: "memory.limit", must, value: format!("{limit} (in use: {usage})") }.into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Cpu, Memory};

    #[test]
    fn a_burst_does_not_stand_in_the_way_of_a_quota() {
        let cpu = Cpu { quota: Some(1000), burst: Some(500), ..Cpu::default() };
        let mut settings = limits::settings(&Resources { cpu: Some(cpu), ..Resources::default() }).unwrap();
        make_room_for_quota(&mut settings);
        let written: Vec<_> = settings.iter().map(|setting| (setting.file.as_str(), setting.value.as_str())).collect();
        assert_eq!(written, [("cpu.max.burst", "0"), ("cpu.max", "1000 100000"), ("cpu.max.burst", "500")]);
    }

    #[test]
    fn a_limit_below_the_usage_is_refused_on_demand() {
        let cgroup = tempfile::tempdir().unwrap();
        std::fs::write(cgroup.path().join("memory.current"), "5000\n").unwrap();
        let check = |limit, check_before_update| {
            let memory = Memory { limit: Some(limit), check_before_update, ..Memory::default() };
            check_usage(cgroup.path(), &Resources { memory: Some(memory), ..Resources::default() })
        };
        assert!(check(4999, Some(true)).unwrap_err().to_string().contains("4999 (in use: 5000)"));
        assert!(check(5000, Some(true)).is_ok() && check(-1, Some(true)).is_ok() && check(1, None).is_ok());
    }
}
