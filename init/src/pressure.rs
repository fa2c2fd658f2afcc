//! The kernel's word that user containers stand still for want of memory (PSI, Documentation/accounting/psi.rst).
//!
//! A trigger costs nothing while nobody waits for memory: the kernel looks only then, and no more often than every tenth
//! of [`WINDOW`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc::{O_CLOEXEC, O_NONBLOCK};

/// Of the tree of user containers.
const FILE: &str = "/sys/fs/cgroup/user/memory.pressure";

/// Within so much time (the shortest that the kernel takes is 500 ms) …
const WINDOW: Duration = Duration::from_millis(500);

/// … some process has waited so long for memory. Ordinary use of the page cache stays below; the throttling at
/// `memory.high` is above at once.
const STALL: Duration = Duration::from_millis(100);

/// A trigger; reported as urgent ([`crate::reactor::Reactor::add_urgent`]) at most once in each [`WINDOW`].
#[derive(Debug)]
pub struct Pressure {
    trigger: File,
}

impl Pressure {
    /// Begins to watch.
    pub fn watch() -> io::Result<Self> {
        let flags = O_NONBLOCK | O_CLOEXEC;
        let mut trigger = OpenOptions::new().read(true).write(true).custom_flags(flags).open(FILE)?;
        // One write, with the terminating zero that the kernel's own example has.
        trigger.write_all(format!("some {} {}\0", STALL.as_micros(), WINDOW.as_micros()).as_bytes())?;
        Ok(Self { trigger })
    }
}

impl AsFd for Pressure {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.trigger.as_fd()
    }
}
