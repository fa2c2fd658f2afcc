//! The harness: machines in QEMU, what is put into them, and the runner of the cases.
//!
//! A case is a function of a [`Bench`] (see [`cases`]); it starts a [`machine::Machine`] and reads as a transcript of
//! what a person would do with it. Nothing here sleeps where it can wait: for a line of the console, an event of
//! QMP, an answer of the guest agent.
//!
//! [`Bench`]: bench::Bench

pub mod archive;
pub mod artifacts;
pub mod bench;
pub mod cases;
pub mod chatty;
pub mod disks;
pub mod figures;
pub mod host;
pub mod machine;
pub mod page;
pub mod programs;
pub mod registry;
pub mod runner;
pub mod services;
pub mod skips;
pub mod steps;
mod sys;
pub mod units;
pub mod wait;
