//! What can be refused before anything is done, with the field's name.

use crate::create::Request;
use crate::error::Error;
use crate::spec::{NamespaceKind, Process, Spec};

/// A request of the library.
pub(crate) fn request(request: &Request<'_>) -> Result<(), Error> {
    spec(request.spec)?;
    crate::labels::check_mounts(request.spec.linux.as_ref().and_then(|linux| linux.mount_label.as_ref()))?;
    if let Some((_, number)) = request.inherited.iter().find(|(_, number)| *number < 3) {
        return Err(Error::configuration("inherited", format!("must have numbers above 2, not {number}")));
    }
    let terminal = request.spec.process.as_ref().is_some_and(|process| process.terminal);
    if terminal != request.console.is_some() {
        let must = if terminal { "needs a console socket" } else { "must be true with a console socket" };
        return Err(Error::configuration("process.terminal", must));
    }
    Ok(())
}

/// What can be said of a whole config.json before anything is done.
pub fn spec(spec: &Spec) -> Result<(), Error> {
    if !is_version_one(&spec.oci_version) {
        let must = format!("must be a version 1.x.y of the specification, not {:?}", spec.oci_version);
        return Err(Error::configuration("ociVersion", must));
    }
    if let Some(process) = &spec.process {
        self::process(process)?;
    }
    if let Some(hooks) = &spec.hooks {
        crate::hooks::check(hooks)?;
    }
    for (position, mount) in spec.mounts.iter().enumerate() {
        if mount.destination.is_empty() {
            return Err(Error::configuration(format!("mounts[{position}].destination"), "must not be empty"));
        }
    }
    let Some(linux) = &spec.linux else { return Ok(()) };
    let has = |kind| linux.namespaces.iter().any(|namespace| namespace.kind == kind);
    let is_new = |kind| linux.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none());
    if is_new(NamespaceKind::User) {
        crate::idmap::check(&linux.uid_mappings, "linux.uidMappings")?;
        crate::idmap::check(&linux.gid_mappings, "linux.gidMappings")?;
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !has(NamespaceKind::User) {
        return Err(Error::configuration("linux.uidMappings", "needs a user namespace in linux.namespaces"));
    }
    if (spec.hostname.is_some() || spec.domainname.is_some()) && !has(NamespaceKind::Uts) {
        return Err(Error::configuration("hostname", "needs a uts namespace in linux.namespaces"));
    }
    if !linux.time_offsets.is_empty() && !is_new(NamespaceKind::Time) {
        return Err(Error::configuration("linux.timeOffsets", "needs a new time namespace in linux.namespaces"));
    }
    if !linux.net_devices.is_empty() && !has(NamespaceKind::Network) {
        return Err(Error::configuration("linux.netDevices", "needs a network namespace in linux.namespaces"));
    }
    if !linux.net_devices.is_empty() && has(NamespaceKind::User) && !is_new(NamespaceKind::User) {
        let must = "cannot be moved into a container that joins a user namespace: the runtime has no rights there";
        return Err(Error::configuration("linux.netDevices", must));
    }
    crate::netdevices::check(&linux.net_devices)?;
    crate::sysctl::check(linux)?;
    for device in &linux.devices {
        if !device.path.is_absolute() {
            let must = format!("must be absolute, not {}", device.path.display());
            return Err(Error::configuration("linux.devices[].path", must));
        }
        if [device.uid, device.gid].contains(&Some(u32::MAX)) {
            return Err(Error::configuration("linux.devices[].uid and gid", "must be below 4294967295"));
        }
    }
    for path in linux.masked_paths.iter().chain(&linux.readonly_paths) {
        if !path.starts_with('/') {
            let must = format!("must be absolute, not {path}");
            return Err(Error::configuration("linux.maskedPaths and linux.readonlyPaths", must));
        }
    }
    Ok(())
}

/// Semantic versioning 2.0.0: three numbers, then perhaps `-` or `+` and more.
fn is_version_one(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &&str| text.parse::<u32>().is_ok_and(|number| number.to_string() == **text);
    matches!(numbers.as_slice(), ["1", _, _]) && numbers.iter().all(is_number)
}

/// The `process` of config.json or of `exec`.
pub(crate) fn process(process: &Process) -> Result<(), Error> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::configuration("process.args", "must name a program"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::configuration("process.cwd", format!("must be absolute, not {:?}", process.cwd)));
    }
    let texts = process.args.iter().chain(&process.env).chain([&process.cwd]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(Error::configuration("process.args, process.env and process.cwd", "must not contain NUL"));
    }
    if let Some(text) = process.env.iter().find(|text| text.find('=').is_none_or(|position| position == 0)) {
        return Err(Error::configuration("process.env", format!("must have the form NAME=value, not {text:?}")));
    }
    let ids = [("uid", process.user.uid), ("gid", process.user.gid)];
    let further = process.user.additional_gids.iter().map(|gid| ("additionalGids", *gid));
    if let Some((field, _)) = ids.into_iter().chain(further).find(|(_, id)| *id == u32::MAX) {
        // setuid(2) and others take it for "no change".
        return Err(Error::configuration(format!("process.user.{field}"), "must be below 4294967295"));
    }
    for limit in &process.rlimits {
        if crate::limits::resource(&limit.kind).is_none() {
            return Err(Error::configuration("process.rlimits[].type", format!("is not known: {}", limit.kind)));
        }
        let same = process.rlimits.iter().filter(|other| other.kind == limit.kind).count();
        if same > 1 {
            return Err(Error::configuration("process.rlimits", format!("has {} more than once", limit.kind)));
        }
    }
    if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(Error::configuration("process.oomScoreAdj", "must be from -1000 to 1000"));
    }
    crate::labels::check_process(process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{IdMapping, Linux, Namespace, ResourceLimit};

    fn valid() -> Spec {
        let process = Process { args: vec!["true".into()], cwd: "/".into(), ..Process::default() };
        Spec { oci_version: "1.0.2".into(), process: Some(process), ..Spec::default() }
    }

    fn message(change: impl FnOnce(&mut Spec)) -> String {
        let mut changed = valid();
        change(&mut changed);
        spec(&changed).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(spec(&valid()).is_ok());
        for version in ["2.0.0", "1", "1.2", "1.02.0", "1.2.x", ""] {
            assert!(message(|spec| spec.oci_version = version.into()).contains("ociVersion"), "{version}");
        }
        assert!(is_version_one("1.3.0-rc.1") && is_version_one("1.0.2+dev"));
        assert!(message(|spec| spec.process.as_mut().unwrap().args.clear()).contains("process.args"));
        assert!(message(|spec| spec.process.as_mut().unwrap().cwd = "tmp".into()).contains("process.cwd"));
        assert!(message(|spec| spec.process.as_mut().unwrap().user.gid = u32::MAX).contains("process.user.gid"));
        let groups = vec![7, u32::MAX];
        let message_of_groups = message(|spec| spec.process.as_mut().unwrap().user.additional_gids = groups);
        assert!(message_of_groups.contains("process.user.additionalGids"));
        let limit = ResourceLimit { kind: "RLIMIT_NONE".into(), hard: 1, soft: 1 };
        assert!(message(|spec| spec.process.as_mut().unwrap().rlimits = vec![limit]).contains("RLIMIT_NONE"));
    }

    #[test]
    fn mappings_and_user_namespace_come_together() {
        let namespaces = vec![Namespace { kind: NamespaceKind::User, path: None }];
        let linux = Linux { namespaces, ..Linux::default() };
        assert!(message(|spec| spec.linux = Some(linux)).contains("linux.uidMappings"));
        let uid_mappings = vec![IdMapping { container_id: 0, host_id: 1, size: 1 }];
        let linux = Linux { uid_mappings, ..Linux::default() };
        assert!(message(|spec| spec.linux = Some(linux)).contains("needs a user namespace"));
    }
}
