//! Descriptors that outlive the program that opened them: for a caller that executes itself anew and keeps its
//! containers, because execve(2) leaves its children and its descriptors where they are.
//!
//! A [`Descriptor`] is written as its number. Whoever reads it, in the next program of the same process, owns it from
//! then on. What nobody has read is told apart by its missing close-on-exec flag, so everything that a program opens by
//! itself must have that flag.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys;

/// The highest number that was ever written or taken over.
static HIGHEST: AtomicI32 = AtomicI32::new(2);

/// The highest number of a descriptor that this program has written or taken over; 2 if there is none.
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
        serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

/// For `#[serde(with = "…")]` on what has a descriptor inside.
pub fn serialize<T: AsFd, S: Serializer>(owner: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let number = owner.as_fd().as_raw_fd();
    HIGHEST.fetch_max(number, Ordering::Relaxed);
    serializer.serialize_i32(number)
}

/// For `#[serde(with = "…")]` on what is made from a descriptor.
pub fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = i32::deserialize(deserializer)?;
    let adopted = adopt(number).map_err(|error| D::Error::custom(format!("descriptor {number}: {error}")))?;
    Ok(T::from(adopted))
}

/// Takes over a descriptor that the last program has left, by its number. EBADF: there is none, it is one of the first
/// three, or it was taken over before.
pub fn adopt(number: i32) -> Result<OwnedFd, Errno> {
    let adopted = sys::adopt::adopt(number)?;
    HIGHEST.fetch_max(number, Ordering::Relaxed);
    Ok(adopted)
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
        assert!(serde_json::from_str::<Descriptor>(&text).is_err());
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
        std::mem::forget(kept);
        let adopted: Descriptor = serde_json::from_str(&text).unwrap();
        assert!(adopt(adopted.as_fd().as_raw_fd()).is_err());
        rustix::io::write(&adopted, b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]).unwrap(), 1);
        assert!(serde_json::from_str::<Descriptor>("-1").is_err());
    }
}
