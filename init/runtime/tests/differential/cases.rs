//! The cases, by topic.

mod cgroups;
mod commands;
mod devices;
mod events;
mod exec;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod safety;
mod usage;

/// A name and what is to hold.
pub type Test = (&'static str, fn());

/// All of them.
pub fn all() -> Vec<Test> {
    [
        process::CASES,
        namespaces::CASES,
        mounts::CASES,
        devices::CASES,
        cgroups::CASES,
        hooks::CASES,
        lifecycle::CASES,
        commands::CASES,
        exec::CASES,
        events::CASES,
        usage::CASES,
        safety::CASES,
    ]
    .concat()
}
