//! Which descriptors a process of a container has: those that it was given, and none else.
//!
//! Functions here close descriptors whatever else owns them. They are only for processes that never run a
//! destructor again: they end in an exec or in `_exit`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use crate::create::{Request, Stdio};
use crate::error::{Context, SystemError};
use crate::sys::clone;

impl Request<'_> {
    /// Everything that the container's process needs of the caller's.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let stdio = [self.stdio.stdin, self.stdio.stdout, self.stdio.stderr];
        let given = stdio.into_iter().flatten().chain(self.console);
        given.chain(self.inherited.iter().map(|(descriptor, _)| *descriptor)).collect()
    }
}

/// Closes every descriptor above 2 that is not among `kept`.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<(), SystemError> {
    let mut numbers: Vec<u32> = kept.iter().filter_map(|kept| u32::try_from(kept.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            clone::close_range(first, number - 1, false).on("close_range", "descriptors of the caller")?;
        }
        first = first.max(number + 1);
    }
    clone::close_range(first, u32::MAX, false).on("close_range", "descriptors of the caller")
}

/// Puts the program's descriptors where it expects them and closes all others but `kept`, which come back under
/// other numbers and are closed on exec.
pub(crate) fn arrange<const KEPT: usize>(
    stdio: Stdio<'_>,
    inherited: &[(BorrowedFd<'_>, RawFd)],
    kept: [Option<BorrowedFd<'_>>; KEPT],
) -> Result<[Option<OwnedFd>; KEPT], SystemError> {
    let above = inherited.iter().map(|(_, number)| *number).max().unwrap_or(2).max(2) + 1;
    let lift = |descriptor: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(descriptor, above).on("dup", "a descriptor for the program")
    };
    // First everything out of the way, then everything to its place: the numbers may cross each other.
    let given = [stdio.stdin, stdio.stdout, stdio.stderr];
    let null = match given.iter().any(Option::is_none) {
        true => {
            Some(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).on("open", "/dev/null")?)
        }
        false => None,
    };
    let mut placed: Vec<(OwnedFd, RawFd)> = Vec::with_capacity(3 + inherited.len());
    for (number, descriptor) in (0..).zip(given) {
        if let Some(descriptor) = descriptor.or(null.as_ref().map(AsFd::as_fd)) {
            placed.push((lift(descriptor)?, number));
        }
    }
    for (descriptor, number) in inherited {
        placed.push((lift(*descriptor)?, *number));
    }
    let mut moved = [const { None }; KEPT];
    for (moved, kept) in moved.iter_mut().zip(kept) {
        *moved = kept.map(lift).transpose()?;
    }
    for (descriptor, number) in &placed {
        clone::duplicate_to(descriptor.as_fd(), *number).context("dup2", || format!("descriptor {number}"))?;
    }
    // Their copies are in place; what closes them is the next line, so their owners must not.
    let targets: Vec<RawFd> = placed.iter().map(|(_, number)| *number).collect();
    placed.into_iter().for_each(|(descriptor, _)| std::mem::forget(descriptor));
    std::mem::forget(null);
    close_gaps(&targets, moved.iter().flatten().map(AsRawFd::as_raw_fd))?;
    Ok(moved)
}

fn close_gaps(targets: &[RawFd], moved: impl Iterator<Item = RawFd>) -> Result<(), SystemError> {
    let mut numbers: Vec<u32> =
        targets.iter().copied().chain(moved).filter_map(|number| u32::try_from(number).ok()).collect();
    numbers.sort_unstable();
    let mut first = 0;
    for number in numbers {
        if number > first {
            clone::close_range(first, number - 1, false).on("close_range", "descriptors of the caller")?;
        }
        first = first.max(number + 1);
    }
    clone::close_range(first, u32::MAX, false).on("close_range", "descriptors of the caller")
}
