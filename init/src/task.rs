//! Slow or dangerous work, done in a forked child that reports through a pipe.
//!
//! The child shares PID 1's mount namespace, so what it mounts stays. A child that crashes or is killed is an error of
//! the task and nothing more. The reaper, not this file, collects its exit status.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use berth_runtime::handover::Handed;
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys;

/// The longest report in bytes. The longest real one is a configuration of a few hundred containers.
const MAXIMUM_REPORT: usize = 8 << 20;

/// Why a task brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The child could not be made.
    #[error("start the task")]
    Start(#[source] nix::Error),
    /// The pipe failed.
    #[error("read the task's report")]
    Read(#[source] std::io::Error),
    /// The child ended without a report, or with a broken one.
    #[error("the task ended without a report: it crashed or was killed")]
    Died(#[source] serde_json::Error),
    /// The report has no end.
    #[error("the task's report is longer than {MAXIMUM_REPORT} bytes")]
    TooLong,
}

/// Work under way in a child, which will report a `T`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Task<T> {
    pid: i32,
    pipe: Handed<File>,
    report: Vec<u8>,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Task<T> {
    /// Starts `work` in a child.
    pub fn start(work: impl FnOnce() -> T) -> Result<Self, TaskError> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(TaskError::Start)?;
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(TaskError::Start)?;
        let pid = sys::fork(|| {
            let report = serde_json::to_vec(&work()).unwrap_or_default();
            i32::from(File::from(writer).write_all(&report).is_err())
        })
        .map_err(TaskError::Start)?;
        Ok(Self { pid: pid.as_raw(), pipe: File::from(reader).into(), report: Vec::new(), kind: PhantomData })
    }

    /// The child.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Takes in what the child has written; the report, once it is whole.
    pub fn advance(&mut self) -> Option<Result<T, TaskError>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match (&*self.pipe).read(&mut buffer) {
                Ok(0) => return Some(serde_json::from_slice(&self.report).map_err(TaskError::Died)),
                Ok(length) => self.report.extend(buffer.iter().take(length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(TaskError::Read(error))),
            }
            if self.report.len() > MAXIMUM_REPORT {
                return Some(Err(TaskError::TooLong));
            }
        }
    }
}

impl<T> AsFd for Task<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reactor::{Reactor, Token};

    /// Of a task that ends.
    pub(crate) fn outcome<T: Serialize + DeserializeOwned>(mut task: Task<T>) -> Result<T, TaskError> {
        let reactor = Reactor::new().unwrap();
        reactor.add(&task, Token::Task(0)).unwrap();
        let result = loop {
            assert!(!reactor.wait(Some(Duration::from_secs(60))).unwrap().is_empty(), "the task says nothing");
            if let Some(result) = task.advance() {
                break result;
            }
        };
        nix::sys::wait::waitpid(task.pid(), None).unwrap();
        result
    }

    #[test]
    fn a_long_report_arrives_whole() {
        let report = outcome(Task::start(|| vec!["x".repeat(1000); 1000]).unwrap()).unwrap();
        assert_eq!(report.iter().map(String::len).sum::<usize>(), 1_000_000);
    }

    #[test]
    fn a_child_that_dies_is_an_error() {
        let task = Task::<String>::start(|| std::process::abort()).unwrap();
        assert!(matches!(outcome(task), Err(TaskError::Died(_))));
    }
}
