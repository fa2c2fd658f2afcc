//! The control API as D-Bus sees it: where it is, its interfaces as zbus proxies, its errors.
//!
//! The API is served peer-to-peer: there is no bus and no broker, a client connects to [`SOCKET_PATH`] and calls
//! [`OBJECT_PATH`]. Structures travel as `a{sv}`, so that a later version can add keys without breaking a client.
//! The server's half is in the `control` system container.

mod types;

use std::collections::HashMap;

use zbus::DBusError;
use zbus::wire::OwnedFd;

pub use types::{Boot, Cause, Change, Container, Creation, Ending, Execution, LogQuery, Machine, Statistics, Step};

pub use crate::SOCKET_PATH;

/// The one object that carries the interfaces.
pub const OBJECT_PATH: &str = "/org/berth";

/// What clients may give as destination; there is nobody else on the connection.
pub const SERVICE_NAME: &str = "org.berth";

/// Errors of the control API. The text is a sentence for people: what was wrong and what to do.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.berth.Error")]
pub enum ApiError {
    /// Anything of D-Bus itself: no connection, no such method.
    #[zbus(error)]
    DBus(zbus::Error),
    /// PID 1 or a service said no.
    Refused(String),
    /// PID 1 or a service did not answer in time.
    Unavailable(String),
}

/// The machine as a whole.
#[zbus::proxy(interface = "org.berth.Machine1", default_service = "org.berth", default_path = "/org/berth")]
pub trait Machine1 {
    /// Everything about the machine at once; the properties of the interface are the same one by one.
    fn describe(&self) -> Result<Machine, ApiError>;
    /// The boot's steps in the order of their beginning.
    fn timeline(&self) -> Result<Vec<Step>, ApiError>;
    /// The boots that are remembered, the oldest first, with what each ended by.
    fn boots(&self) -> Result<Vec<Boot>, ApiError>;
    /// The configuration in force, as TOML.
    fn configuration(&self) -> Result<String, ApiError>;
    /// What the configuration and the containers made beside it loosen, and what images must show: a
    /// [`berth_config::Audit`] in JSON.
    fn audit(&self) -> Result<String, ApiError>;
    /// Switches the machine off, in order.
    fn power_off(&self) -> Result<(), ApiError>;
    /// Starts the machine again, in order.
    fn reboot(&self) -> Result<(), ApiError>;
    /// Stops the processor, in order, and leaves the power on.
    fn halt(&self) -> Result<(), ApiError>;
    /// What other configuration files, each with its name and text, would change: a `berth_config::Plan` as JSON.
    fn plan(&self, files: &[(&str, &str)]) -> Result<String, ApiError>;
    /// The same, and the configuration is in force and recorded by the time of the answer. With a time in milliseconds
    /// other than 0 the one before is in force again after it, unless [`Self::confirm`] comes first.
    fn apply(&self, files: &[(&str, &str)], confirm_ms: u64) -> Result<String, ApiError>;
    /// As [`Self::plan`], for files that are larger than a message, which is 32 KiB: a list of names and texts as JSON, in a
    /// file of memory (memfd_create(2)) of at most 4 MiB.
    fn plan_files(&self, files: OwnedFd) -> Result<String, ApiError>;
    /// As [`Self::apply`], for such files.
    fn apply_files(&self, files: OwnedFd, confirm_ms: u64) -> Result<String, ApiError>;
    /// The configuration that was applied on trial is to stay.
    fn confirm(&self) -> Result<(), ApiError>;
    /// PID 1 executes itself anew; no container notices.
    fn reexecute(&self) -> Result<(), ApiError>;
    /// PID 1 executes the program of this file, which takes its place without a reboot; no container notices. Refused if
    /// that program does not take over what the present one leaves.
    fn reexecute_program(&self, program: OwnedFd) -> Result<(), ApiError>;
    /// Turns signals on for this connection; until then it gets none.
    fn subscribe(&self) -> Result<(), ApiError>;

    /// The machine's state has changed to this.
    #[zbus(signal)]
    fn machine_changed(&self, state: crate::message::MachineState) -> Result<(), ApiError>;
    /// This client reads too slowly and that many signals were left out: ask for everything again.
    #[zbus(signal)]
    fn missed(&self, count: u64) -> Result<(), ApiError>;
}

/// The containers, system and user.
#[zbus::proxy(interface = "org.berth.Containers1", default_service = "org.berth", default_path = "/org/berth")]
pub trait Containers1 {
    /// All of them, system containers first, by name.
    fn list(&self) -> Result<Vec<Container>, ApiError>;
    /// One of them.
    fn inspect(&self, name: &str) -> Result<Container, ApiError>;
    /// What one is to be, and what it was prepared from: JSON of a table with `definition`, as in a configuration file, and
    /// `prepared`, a [`crate::message::PreparedImage`] or null.
    fn definition(&self, name: &str) -> Result<String, ApiError>;
    /// What those that run use.
    fn statistics(&self) -> Result<Vec<Statistics>, ApiError>;
    /// What user containers take of the disk: a pipe with one [`crate::images::ContainerSize`] a line, as JSON, and an empty line
    /// at the end.
    fn sizes(&self) -> Result<OwnedFd, ApiError>;
    /// Waits until the present run of a container is over, or the next one if it is about to run: a pipe that brings one
    /// line of JSON then, a [`crate::message::ExecutionEnd`], or nothing if the container is removed meanwhile. A client
    /// waits for 16 at once.
    fn wait(&self, name: &str) -> Result<OwnedFd, ApiError>;
    /// What has led to the state of a container, of a link (`link eth0` if a container may have its name, too) or, by the name
    /// `boot`, of the boot: itself, and the causes of each one level deeper after it.
    fn why(&self, name: &str) -> Result<Vec<Cause>, ApiError>;
    /// Makes a container that no configuration declares, and that waits for its start. The definition is what a
    /// configuration file would say of it: one table `[containers.<name>]` in TOML. It stays, over reboots too, until it
    /// is removed.
    fn create(&self, definition: &str, options: Creation) -> Result<(), ApiError>;
    /// The same, and starts it. Returns the client's end of a session, a SOCK_SEQPACKET socket with messages in JSON, see
    /// [`crate::message::ToClient`]: it tells what becomes of the container and, with `streams`, brings its standard
    /// streams.
    fn run(&self, definition: &str, options: Creation, streams: bool) -> Result<OwnedFd, ApiError>;
    /// A session with a running container, as [`Self::run`] returns it, with its standard streams. Another client that
    /// has one loses it.
    fn attach(&self, name: &str) -> Result<OwnedFd, ApiError>;
    /// Starts a container as [`Self::start`] does, with a session from before its first word.
    fn start_attached(&self, name: &str) -> Result<OwnedFd, ApiError>;
    /// Forgets a container that no configuration declares, with what it has written and printed; with `force` also one that
    /// runs, which is killed; with `volumes` also those that only its image asked for. Returns when it is gone.
    fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), ApiError>;
    /// Lets a container's processes stand still.
    fn pause(&self, name: &str) -> Result<(), ApiError>;
    /// Lets them go on.
    fn unpause(&self, name: &str) -> Result<(), ApiError>;
    /// Gives a container's terminal another size. Whoever executed a program with a terminal has its master, and does so
    /// there (ioctl TIOCSWINSZ).
    fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), ApiError>;
    /// The containers that a name stands for: all replicas of one that has them.
    fn instances(&self, name: &str) -> Result<Vec<String>, ApiError>;
    /// Starts a container that is not running; returns when that is under way.
    fn start(&self, name: &str) -> Result<(), ApiError>;
    /// Asks a container to stop, and kills it after its time-out; returns when that is under way.
    fn stop(&self, name: &str) -> Result<(), ApiError>;
    /// Stops and starts; returns when that is under way.
    fn restart(&self, name: &str) -> Result<(), ApiError>;
    /// The same as `stop`, with another signal or time-out than the container's own.
    fn stop_with(&self, name: &str, ending: Ending) -> Result<(), ApiError>;
    /// The same as `restart`, with another signal or time-out than the container's own.
    fn restart_with(&self, name: &str, ending: Ending) -> Result<(), ApiError>;
    /// Sends a signal, by number, to the first process.
    fn kill(&self, name: &str, signal: i32) -> Result<(), ApiError>;
    /// What a container has printed: a pipe with one line of output a line, `TIME STREAM TEXT`, see
    /// [`crate::logs`]. The pipe ends with the last line, or with the reader if the query says to follow.
    fn logs(&self, name: &str, query: LogQuery) -> Result<OwnedFd, ApiError>;

    /// What has happened to containers since a moment, in microseconds since 1970 (UTC), the oldest first: as far as it is
    /// among the last 256 changes since this API was started.
    fn changes_since(&self, since_us: u64) -> Result<Vec<Change>, ApiError>;

    /// Runs a further program in a running container, on the caller's own descriptors: standard input, output and
    /// error, or, with a terminal, one end of a stream socket pair that the terminal's master is sent to. Returns a
    /// pipe that brings one line of JSON, a [`crate::message::ExecutionEnd`], when the program has ended, or, detached, when it
    /// has begun.
    fn execute(&self, name: &str, execution: Execution, descriptors: Vec<OwnedFd>) -> Result<OwnedFd, ApiError>;

    /// The state of a container has changed.
    #[zbus(signal)]
    fn container_changed(&self, container: Container) -> Result<(), ApiError>;
    /// There is no container of this name any more; as it was last.
    #[zbus(signal)]
    fn container_removed(&self, container: Container) -> Result<(), ApiError>;
}

/// Images.
#[zbus::proxy(interface = "org.berth.Images1", default_service = "org.berth", default_path = "/org/berth")]
pub trait Images1 {
    /// Brings an image here from its registry: a pipe with one [`crate::images::PullEvent`] a line, as JSON. It goes on
    /// if nobody reads.
    fn pull(&self, image: &str) -> Result<OwnedFd, ApiError>;
    /// Takes an image to the registry in its name: a pipe with one [`crate::images::PullEvent`] a line, as with a pull.
    fn push(&self, image: &str) -> Result<OwnedFd, ApiError>;
    /// Keeps who pulls from a registry and pushes there, if that takes it: a pipe with an [`crate::images::End`].
    fn login(&self, registry: &str, username: &str, password: &str) -> Result<OwnedFd, ApiError>;
    /// Forgets it.
    fn logout(&self, registry: &str) -> Result<OwnedFd, ApiError>;
    /// Writes an archive with these images into a file or pipe, which the caller has opened. Returns a pipe that brings one
    /// line, a [`crate::images::End`] as JSON, when that is done; so do all that follow.
    fn save(&self, images: &[&str], target: OwnedFd) -> Result<OwnedFd, ApiError>;
    /// Takes the images of an archive, a file or a pipe. `name` is what the archive is called.
    fn import(&self, source: OwnedFd, name: &str) -> Result<OwnedFd, ApiError>;
    /// Gives an image another name.
    fn tag(&self, source: &str, target: &str) -> Result<OwnedFd, ApiError>;
    /// Takes a name away, and with the last one the image; with `force` also if containers run from it.
    fn remove(&self, image: &str, force: bool) -> Result<OwnedFd, ApiError>;
    /// Everything about an image, as JSON.
    fn inspect(&self, image: &str) -> Result<OwnedFd, ApiError>;
    /// Which images are here: a pipe with one [`crate::images::StoredImage`] a line, as JSON.
    fn list(&self) -> Result<OwnedFd, ApiError>;
    /// Removes images that no container needs: a pipe with one [`crate::images::PruneEvent`] a line, as JSON. With `all` also
    /// those with names; only those that were not used for so many seconds; with `dry_run` it only says which.
    fn prune(&self, all: bool, unused_s: u64, dry_run: bool) -> Result<OwnedFd, ApiError>;
}

/// Volumes. Every method returns a pipe with one [`crate::images::VolumeEvent`] a line, as JSON.
#[zbus::proxy(interface = "org.berth.Volumes1", default_service = "org.berth", default_path = "/org/berth")]
pub trait Volumes1 {
    /// All of them, with who uses them.
    fn list(&self) -> Result<OwnedFd, ApiError>;
    /// Makes one, unless there is one of that name. It holds as many bytes as `limit` says at most, if that is not 0.
    fn create(&self, name: &str, labels: HashMap<String, String>, limit: u64) -> Result<OwnedFd, ApiError>;
    /// Removes volumes that no container uses; with `force`, one that is not there is no mistake.
    fn remove(&self, names: &[&str], force: bool) -> Result<OwnedFd, ApiError>;
    /// Removes those that no container uses: those that images have asked for, with `all` also those with names. With
    /// `dry_run` it only says which.
    fn prune(&self, all: bool, dry_run: bool) -> Result<OwnedFd, ApiError>;
}
