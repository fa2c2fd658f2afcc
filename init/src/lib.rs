//! PID 1: the boot, the supervisor of every container, and the way down.
//!
//! One thread, one epoll loop. It never panics and never blocks: whatever may hang or be slow (a mount, a file system
//! check, reading a configuration that somebody else wrote) happens in a forked child, see [`task`].
//!
//! Where to start reading: [`boot`] is the plan as a table, [`machine`] the loop, [`supervisor`] the containers.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod clock;
pub mod command_line;
pub mod journal;
pub mod mounts;
pub mod reactor;
pub mod storage;
pub mod sys;
pub mod task;
pub mod timeline;
pub mod uevent;
