//! A failed system call with its subject, and the chain of texts that crosses a process boundary.

use std::fmt::Write as _;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A system call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call} {subject}")]
pub struct SystemError {
    /// Its name.
    pub call: &'static str,
    /// What it was done to, usually a path.
    pub subject: String,
    /// What the kernel said.
    #[source]
    pub source: Errno,
}

/// Names the call and its subject in a bare error number.
pub(crate) trait Context<T> {
    /// `subject` is only evaluated on failure.
    fn context<S: Into<String>>(self, call: &'static str, subject: impl FnOnce() -> S) -> Result<T, SystemError>;

    /// For a call with a subject that is at hand.
    fn on(self, call: &'static str, subject: &str) -> Result<T, SystemError>
    where
        Self: Sized,
    {
        self.context(call, || subject)
    }
}

impl<T> Context<T> for Result<T, Errno> {
    fn context<S: Into<String>>(self, call: &'static str, subject: impl FnOnce() -> S) -> Result<T, SystemError> {
        self.map_err(|source| SystemError { call, subject: subject().into(), source })
    }
}

impl<T> Context<T> for Result<T, std::io::Error> {
    fn context<S: Into<String>>(self, call: &'static str, subject: impl FnOnce() -> S) -> Result<T, SystemError> {
        self.map_err(|error| {
            let source = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
            SystemError { call, subject: subject().into(), source }
        })
    }
}

/// An error as texts, from the step down to the kernel's word; what another process sends of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The outermost first; never empty where it tells of an error.
    pub texts: Vec<String>,
    /// The kernel's error number, 0 if it did not come to that.
    pub errno: i32,
}

impl Chain {
    /// Everything that `error` and its sources say.
    #[must_use]
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut texts = vec![error.to_string()];
        let mut errno = reported(error).unwrap_or_default();
        let mut next = error.source();
        while let Some(cause) = next {
            let of_io = || cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
            let number = cause.downcast_ref::<Errno>().copied().or_else(|| of_io().map(Errno::from_raw_os_error));
            if let Some(number) = number {
                errno = number.raw_os_error();
                texts.push(errno_text(number));
            } else {
                errno = reported(cause).unwrap_or(errno);
                texts.push(cause.to_string());
            }
            next = cause.source();
        }
        Self { texts, errno }
    }
}

/// The number in what another process has sent.
fn reported(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    // The source of a step is in a box, which is an error of its own type.
    match error.downcast_ref::<Error>().or_else(|| error.downcast_ref::<Box<Error>>().map(AsRef::as_ref)) {
        Some(Error::Reported(chain)) => Some(chain.errno),
        _ => None,
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, text) in self.texts.iter().enumerate() {
            if position > 0 {
                formatter.write_str(": ")?;
            }
            formatter.write_str(text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Chain {}

/// The kernel's text without Rust's decoration, lower case as the rest of a chain.
fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    let mut out = String::with_capacity(plain.len());
    let mut characters = plain.chars();
    if let Some(first) = characters.next() {
        out.extend(first.to_lowercase());
    }
    out.extend(characters);
    if out.is_empty() {
        // A String takes every text.
        let _ = write!(out, "error {}", errno.raw_os_error());
    }
    out
}

/// Why a container (or a process in one) did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the set-up.
    #[error("{step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: Box<Error>,
    },
    /// The configuration says what cannot be.
    #[error("invalid configuration: {field} {must}")]
    Configuration {
        /// Where in config.json.
        field: String,
        /// What it must be.
        must: String,
    },
    /// What a process of ours said before it gave up.
    #[error("{0}")]
    Reported(Chain),
    /// It ended without a word, or was killed.
    #[error("the {process} process ended without a report")]
    Died {
        /// Which.
        process: &'static str,
    },
    /// The caller was told to stop.
    #[error("interrupted by a signal")]
    Interrupted,
    /// It said what was not expected.
    #[error("an unexpected message from the {process} process")]
    Protocol {
        /// Which.
        process: &'static str,
    },
    /// Namespaces.
    #[error(transparent)]
    Namespace(#[from] crate::namespaces::NamespaceError),
    /// Id mappings.
    #[error(transparent)]
    IdMap(#[from] crate::idmap::IdMapError),
    /// Mounts.
    #[error(transparent)]
    Mount(#[from] crate::mounts::MountError),
    /// The root.
    #[error(transparent)]
    Root(#[from] crate::rootfs::RootError),
    /// Devices.
    #[error(transparent)]
    Device(#[from] crate::devices::DeviceError),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// Network devices.
    #[error(transparent)]
    NetDevice(#[from] crate::netdevices::NetDeviceError),
    /// Cache and memory bandwidth.
    #[error(transparent)]
    Rdt(#[from] crate::resctrl::RdtError),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
    /// Capabilities.
    #[error(transparent)]
    Capability(#[from] crate::capabilities::CapabilityError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
    /// A system call.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl Error {
    /// The configuration's field and what it must be.
    pub(crate) fn configuration(field: impl Into<String>, must: impl Into<String>) -> Self {
        Self::Configuration { field: field.into(), must: must.into() }
    }
}

/// Names the step that an error ended.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::Step { step, source: Box::new(error.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_step_subject_and_kernel_text() {
        let error = Err::<(), _>(Errno::NOENT).on("open", "/no/where").unwrap_err();
        let chain = Chain::of(&error);
        assert_eq!(chain.to_string(), "open /no/where: no such file or directory");
        assert_eq!(chain.errno, libc::ENOENT);
    }

    #[test]
    fn the_number_survives_a_report_and_a_step() {
        let chain = Chain { texts: vec!["exec /x".to_owned()], errno: libc::EACCES };
        let reported = Error::Reported(chain);
        assert_eq!(Chain::of(&reported).errno, libc::EACCES);
        let step = Error::Step { step: "run it", source: Box::new(reported) };
        assert_eq!(Chain::of(&step).errno, libc::EACCES);
    }
}
