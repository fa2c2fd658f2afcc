//! What PID 1 and the programs that talk to it share.
//!
//! - [`message`]: the requests, replies and notices, as plain data
//! - [`channel`]: how they travel: one message a packet, descriptors beside it
//! - [`clock`]: what a machine's clock may say
//! - [`images`]: what is asked of the `engine` system container
//! - [`listing`]: many containers in one piece
//! - [`listener`]: sockets that only root connects to
//! - [`logs`]: what is asked of the `logs` system container, and the form of a line
//! - [`volumes`]: what is asked of `engine` about volumes
//! - `dbus` (feature): the D-Bus interfaces of the control API, for clients
//!
//! Nothing here does anything on its own: no policy, no logging.

/// The socket of the control API, on the machine and in containers that may use it; mode 0600.
pub const SOCKET_PATH: &str = "/run/berth/control.sock";

/// What stands behind the last line of an answer through a pipe: an empty one. Without it the answer was cut off, because
/// the service that gave it has ended.
pub const ANSWER_END: &[u8] = b"\n";

pub mod channel;
pub mod clock;
#[cfg(feature = "dbus")]
pub mod dbus;
pub mod images;
pub mod listener;
pub mod listing;
pub mod logs;
pub mod message;
pub mod volumes;
