//! The cases, by topic.

mod confinement;
mod init;
mod layers;
mod lifecycle;
mod limits;
mod mounts;
mod netdevices;
mod notify;

/// A name and what is to hold.
pub type Test = (&'static str, fn());

/// All of them.
pub static ALL: std::sync::LazyLock<Vec<Test>> = std::sync::LazyLock::new(|| {
    [
        lifecycle::CASES,
        init::CASES,
        layers::CASES,
        confinement::CASES,
        mounts::CASES,
        netdevices::CASES,
        limits::CASES,
        notify::CASES,
    ]
    .concat()
});
