//! Descriptors that outlive the program that opened them: for a caller that executes itself anew and keeps its
//! containers, because execve(2) leaves its children and its descriptors where they are.
//!
//! A [`Descriptor`] is written as its number. Whoever reads it, in the next program of the same process, owns it from
//! then on; what nobody has read is told apart by its missing close-on-exec flag.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::FdFlags;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys::adopt::adopt;

/// The highest number that was ever written.
static HIGHEST: AtomicI32 = AtomicI32::new(2);

/// The highest number of a descriptor that this program has written; 2 if it has written none.
#[must_use]
pub fn highest() -> i32 {
    HIGHEST.load(Ordering::Relaxed)
}

/// A descriptor that can be handed to the next program. Reading one twice, or one that is not open, is an error.
#[derive(Debug)]
pub struct Descriptor(OwnedFd);

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = self.0.as_raw_fd();
        HIGHEST.fetch_max(number, Ordering::Relaxed);
        serializer.serialize_i32(number)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i32::deserialize(deserializer)?;
        let adopted = adopt(number).map_err(|error| D::Error::custom(format!("descriptor {number}: {error}")))?;
        Ok(Self(adopted))
    }
}

/// Whether a descriptor was left by the last program and has not been read.
#[must_use]
pub fn is_unclaimed(descriptor: BorrowedFd<'_>) -> bool {
    rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_read_once_and_only_if_it_was_left() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let number = serde_json::to_string(&Descriptor::from(reader.try_clone().unwrap())).unwrap();
        // The copy is closed again: its number says nothing any more.
        assert!(serde_json::from_str::<Descriptor>(&number).is_err());
        let kept = Descriptor::from(writer);
        let text = serde_json::to_string(&kept).unwrap();
        assert!(highest() >= kept.as_fd().as_raw_fd());
        // Still closed on exec: it belongs to this program.
        assert!(!is_unclaimed(kept.as_fd()));
        assert!(serde_json::from_str::<Descriptor>(&text).is_err());
        rustix::io::fcntl_setfd(&kept, FdFlags::empty()).unwrap();
        std::mem::forget(kept);
        let adopted: Descriptor = serde_json::from_str(&text).unwrap();
        assert!(!is_unclaimed(adopted.as_fd()));
        rustix::io::write(&adopted, b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]).unwrap(), 1);
        assert!(serde_json::from_str::<Descriptor>("-1").is_err());
    }
}
