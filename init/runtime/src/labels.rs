//! What Linux security modules know a container by: an AppArmor profile, SELinux labels.
//!
//! A kernel without the module cannot keep the promise that the field makes, so the field is refused there by its
//! name. The label of a program is written last of all: hooks that the process runs before would have it, too.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Step};
use crate::spec::Process;

/// `SELINUX_MAGIC` of linux/magic.h.
const SELINUX_MAGIC: u32 = 0xf97c_ff8c;

/// The profile that is no profile; every kernel can do that.
const UNCONFINED: &str = "unconfined";

/// File systems that take no context: their files have labels of their own (proc, sysfs, cgroup2), or the kernel
/// labels them by who makes them (mqueue).
const SELF_LABELLED: &[&str] = &["proc", "sysfs", "cgroup", "cgroup2", "mqueue"];

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    // The magic fits 32 bits; the field is a signed one on some architectures.
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type as u32 == SELINUX_MAGIC)
}

/// A wish that is not empty.
fn wanted(label: Option<&String>) -> Option<&str> {
    label.map(String::as_str).filter(|label| !label.is_empty())
}

fn profile(process: &Process) -> Option<&str> {
    wanted(process.apparmor_profile.as_ref())
}

/// Refuses labels of a process that this kernel does not have.
pub(crate) fn check_process(process: &Process) -> Result<(), Error> {
    if profile(process).is_some_and(|profile| profile != UNCONFINED) && !has_apparmor() {
        let must = "needs AppArmor, which this kernel does not have or has not enabled";
        return Err(Error::configuration("process.apparmorProfile", must));
    }
    if wanted(process.selinux_label.as_ref()).is_some() && !has_selinux() {
        return Err(Error::configuration("process.selinuxLabel", NO_SELINUX));
    }
    Ok(())
}

const NO_SELINUX: &str = "needs SELinux, which this kernel does not have or has not enabled";

/// Refuses a label of mounts that this kernel does not have.
pub(crate) fn check_mounts(label: Option<&String>) -> Result<(), Error> {
    if wanted(label).is_some() && !has_selinux() {
        return Err(Error::configuration("linux.mountLabel", NO_SELINUX));
    }
    Ok(())
}

/// What a file system of this kind is given as its option `context`.
pub(crate) fn context<'a>(kind: &str, label: Option<&'a String>) -> Option<&'a str> {
    wanted(label).filter(|_| !SELF_LABELLED.contains(&kind))
}

/// The labels of a program that will be executed: files of the process's own, opened while there is a way to them.
#[derive(Debug)]
pub(crate) struct Labels {
    files: Vec<(OwnedFd, String)>,
}

impl Labels {
    /// Whether there are any.
    pub(crate) fn are_wanted(process: &Process) -> bool {
        profile(process).is_some_and(|profile| profile != UNCONFINED || has_apparmor())
            || wanted(process.selinux_label.as_ref()).is_some()
    }

    /// Opens the files of the calling process below `procfs`, the host's.
    pub(crate) fn open(process: &Process, procfs: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut add = |path: &str, text: String| -> Result<(), Error> {
            let file = rustix::fs::openat(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            files.push((file.context("open", || format!("/proc/{path}"))?, text));
            Ok(())
        };
        if let Some(profile) = profile(process).filter(|_| has_apparmor()) {
            add("thread-self/attr/apparmor/exec", format!("exec {profile}")).step("set process.apparmorProfile")?;
        }
        if let Some(label) = wanted(process.selinux_label.as_ref()) {
            add("thread-self/attr/exec", label.to_owned()).step("set process.selinuxLabel")?;
        }
        Ok(Self { files })
    }

    /// Has the next program that the process executes labelled.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        for (file, text) in &self.files {
            rustix::io::write(file, text.as_bytes()).on("write", text).step("label the program")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_refused_by_its_field_where_the_module_is_missing() {
        let mut process = Process { apparmor_profile: Some("web".into()), ..Process::default() };
        let text = |result: Result<(), Error>| result.err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(text(check_process(&process)).contains("process.apparmorProfile needs AppArmor"), !has_apparmor());
        process = Process { selinux_label: Some("a:b:c".into()), ..Process::default() };
        assert_eq!(text(check_process(&process)).contains("process.selinuxLabel needs SELinux"), !has_selinux());
        let label = Some("a:b:c".to_owned());
        assert_eq!(text(check_mounts(label.as_ref())).contains("linux.mountLabel needs SELinux"), !has_selinux());
    }

    #[test]
    fn nothing_and_unconfined_can_be_had_everywhere() {
        for profile in ["", UNCONFINED] {
            let process = Process { apparmor_profile: Some(profile.into()), ..Process::default() };
            assert!(check_process(&process).is_ok());
        }
        assert!(check_mounts(Some(&String::new())).is_ok());
    }

    #[test]
    fn only_file_systems_without_labels_of_their_own_take_a_context() {
        let label = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811".to_owned();
        for kind in ["tmpfs", "devpts", "ext4"] {
            assert_eq!(context(kind, Some(&label)), Some(label.as_str()));
        }
        for kind in SELF_LABELLED {
            assert_eq!(context(kind, Some(&label)), None);
        }
        assert_eq!(context("tmpfs", None), None);
    }
}
