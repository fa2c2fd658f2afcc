//! What the commands have in common: their errors, a bundle, a container's cgroup.

use std::path::{Path, PathBuf};

use berth_runtime::spec::{ParseError, Process, Resources, Spec, Status};
use berth_runtime::{Chain, Error};

use crate::log::Log;

/// Why a command failed; texts as scripts written for runc know them, where they look for any.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("--systemd-cgroup is not supported: cgroups are made directly, leave the flag out")]
    SystemdCgroup,
    #[error("--no-pivot is not supported: the root is always exchanged by pivot_root")]
    NoPivot,
    #[error("cannot {call}: this runtime does not save processes and bring them back")]
    NoCheckpoint { call: String },
    #[error("invalid container id {id:?}: letters, digits, _, +, - and . only")]
    Id { id: String },
    #[error("container with given ID already exists: {id}")]
    Exists { id: String },
    #[error("container does not exist: {id}")]
    NotFound { id: String },
    #[error("{call} {}", path.display())]
    File {
        call: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}: {error}")]
    Json { what: String, error: serde_json::Error },
    #[error("invalid {}: {error}", path.display())]
    Invalid { path: PathBuf, error: ParseError },
    #[error("cannot {action} a container that is {status}")]
    State { action: &'static str, status: &'static str },
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: &'static str },
    #[error("unknown signal {signal:?}")]
    Signal { signal: String },
    #[error("{option} {must}")]
    Option { option: &'static str, must: String },
    #[error("no cgroup2 file system is mounted")]
    NoCgroup,
    #[error(
        "linux.resources needs a cgroup that this user may write to, which {} is not: have one delegated, or leave the limits out",
        path.display()
    )]
    NotDelegated { path: PathBuf },
    #[error("container not running")]
    NotRunning,
    #[error("the container's processes did not end")]
    Survivors,
    #[error(transparent)]
    Runtime(#[from] Error),
    #[error(transparent)]
    Hook(#[from] berth_runtime::hooks::HookError),
    #[error(transparent)]
    System(#[from] berth_runtime::SystemError),
    #[error(transparent)]
    Cgroup(#[from] berth_runtime::cgroup::CgroupError),
}

impl Failure {
    /// `checkpoint` or `restore`, with what was said besides.
    pub fn no_checkpoint(command: &str, words: &[String]) -> Self {
        Self::NoCheckpoint { call: [&[command.to_owned()], words].concat().join(" ") }
    }

    /// The whole story in one line.
    pub fn chain(&self) -> String {
        Chain::of(self).to_string()
    }
}

/// Names call and path of an I/O error.
pub fn during(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::File { call, path, source }
}

pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Stopped => "stopped",
        Status::Paused => "paused",
    }
}

/// "The runtime SHOULD log a warning" of those that the process does not get.
pub fn warn_of_capabilities(log: &Log, spec: &Spec, process: &Process) {
    for name in berth_runtime::capabilities_not_granted(spec, process) {
        log.warning(&format!("warning: process.capabilities: {name} cannot be granted and is left out"));
    }
}

/// A bundle's directory and configuration.
pub fn bundle(path: &Path) -> Result<(PathBuf, Spec), Failure> {
    let directory = path.canonicalize().map_err(during("find the bundle", path))?;
    let file = directory.join("config.json");
    let text = std::fs::read(&file).map_err(during("read", &file))?;
    Ok((directory, parse(&text, &file)?))
}

/// A text of the caller's in the specification's types.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, Failure> {
    berth_runtime::spec::parse(text).map_err(|error| Failure::Invalid { path: path.to_owned(), error })
}

/// Where the cgroup2 file system is mounted: the usual places first.
pub fn cgroup_root() -> Option<PathBuf> {
    let is_there = |path: &PathBuf| path.join("cgroup.controllers").exists();
    let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    usual.into_iter().find(is_there).or_else(|| {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let trees = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
        // What something else is mounted over is listed too.
        trees.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).find(is_there)
    })
}

/// The cgroup of a container: where config.json wants it below the root, or one of its name.
pub fn cgroup(spec: &Spec, id: &str) -> Result<Option<PathBuf>, Failure> {
    let linux = spec.linux.as_ref();
    let wanted = linux.and_then(|linux| linux.cgroups_path.as_deref()).filter(|path| !path.is_empty());
    let Some(root) = cgroup_root() else {
        let needs = linux.is_some_and(|linux| linux.resources.is_some()) || wanted.is_some();
        return if needs { Err(Failure::NoCgroup) } else { Ok(None) };
    };
    let wanted = wanted.map_or_else(|| PathBuf::from(id), |path| PathBuf::from(path.trim_start_matches('/')));
    let plain = wanted.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain || wanted.as_os_str().is_empty() {
        let must = format!("must stay below the cgroup root, not {}", wanted.display());
        return Err(Failure::Option { option: "linux.cgroupsPath", must });
    }
    let path = root.join(wanted);
    let limited = linux.and_then(|linux| linux.resources.as_ref()).is_some_and(has_limits);
    match is_ours(&path) {
        true => Ok(Some(path)),
        false if limited => Err(Failure::NotDelegated { path }),
        false => Ok(None),
    }
}

/// Whether the caller may make a cgroup there. Root may; and somebody else below one that was given to him.
fn is_ours(path: &Path) -> bool {
    let nearest = path.ancestors().find(|ancestor| ancestor.exists());
    rustix::process::geteuid().is_root()
        || nearest.is_some_and(|nearest| rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_ok())
}

/// Whether there is anything that only a cgroup can keep. Device rules are no limits for who can make no devices.
fn has_limits(resources: &Resources) -> bool {
    Resources { devices: Vec::new(), ..resources.clone() } != Resources::default()
}
