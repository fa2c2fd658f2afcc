//! Descriptors that outlive the program that opened them: for a caller that executes itself anew and keeps its
//! containers, because execve(2) leaves its children and its descriptors where they are.
//!
//! A [`Descriptor`] is written as its number. Whoever reads it, in the next program of the same process, owns it from
//! then on. What nobody has read is told apart by its missing close-on-exec flag, so everything that a program opens by
//! itself must have that flag.
//!
//! What was written once stays open after it was dropped, until [`take_dropped`]: what is written down must not name a
//! number that is closed, or that is another descriptor's by now.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::io::Errno;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys;

/// The highest number that was ever written or taken over.
static HIGHEST: AtomicI32 = AtomicI32::new(2);

thread_local! {
    /// What was written and then dropped.
    static DROPPED: RefCell<Vec<Arc<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// The highest number of a descriptor that this program has written or taken over; 2 if there is none.
#[must_use]
pub fn highest() -> i32 {
    HIGHEST.load(Ordering::Relaxed)
}

/// What this thread has dropped after it was written, to be dropped for good as soon as what is written down says nothing
/// of it any more.
#[must_use]
pub fn take_dropped() -> Vec<Arc<dyn Any>> {
    DROPPED.take()
}

/// A descriptor that can be handed to the next program.
pub type Descriptor = Handed<OwnedFd>;

/// What owns a descriptor that can be handed to the next program. Reading one twice, or one that is not open, is an
/// error.
#[derive(Debug)]
pub struct Handed<T: 'static> {
    owner: Arc<T>,
    written: AtomicBool,
}

impl<T: 'static> Drop for Handed<T> {
    fn drop(&mut self) {
        if *self.written.get_mut() {
            let owner = Arc::clone(&self.owner);
            // An error means that the thread ends, which hands nothing over any more.
            let _ = DROPPED.try_with(|dropped| dropped.borrow_mut().push(owner));
        }
    }
}

impl<T: 'static> Deref for Handed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owner
    }
}

impl<T: AsFd + 'static> AsFd for Handed<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_fd()
    }
}

impl<T: 'static> From<T> for Handed<T> {
    fn from(owner: T) -> Self {
        Self { owner: Arc::new(owner), written: AtomicBool::new(false) }
    }
}

impl<T: AsFd + 'static> Serialize for Handed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.store(true, Ordering::Relaxed);
        serialize(self, serializer)
    }
}

impl<'de, T: From<OwnedFd> + 'static> Deserialize<'de> for Handed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let owner = Arc::new(deserialize(deserializer)?);
        Ok(Self { owner, written: AtomicBool::new(true) })
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

    fn pipe() -> (OwnedFd, OwnedFd) {
        use rustix::pipe::PipeFlags;
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    #[test]
    fn a_descriptor_is_read_once_and_only_if_it_was_left() {
        let (reader, writer) = pipe();
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

    #[test]
    fn what_was_written_stays_open_until_it_is_written_down_that_it_is_gone() {
        let (reader, writer) = pipe();
        let writer = Descriptor::from(writer);
        serde_json::to_string(&writer).unwrap();
        drop(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]), Err(Errno::AGAIN));
        drop(take_dropped());
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]), Ok(0));
    }

    #[test]
    fn what_was_never_written_is_closed_at_once() {
        let (reader, writer) = pipe();
        drop(Descriptor::from(writer));
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]), Ok(0));
    }
}
