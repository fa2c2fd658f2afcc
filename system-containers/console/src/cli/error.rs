//! Why a command failed, in words for the person who typed it: what was wrong and what to do.

use std::path::PathBuf;

use berth_control::dbus::ApiError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers on the socket.
    #[error(
        "the control API does not answer on {}: {source}\n\
         The system container `control` may be starting again; try once more, or look at the kernel log with `dmesg`.",
        path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: zbus::Error,
    },
    /// It is for root.
    #[error("{} is for root alone; run this as root", path.display())]
    NotRoot {
        /// The socket.
        path: PathBuf,
    },
    /// PID 1 or a service said no; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error(
        "the control API stopped answering: {0}\nThe system container `control` may be starting again; try once more."
    )]
    Broken(zbus::Error),
    /// The connection has ended.
    #[error("the control API went away while this waited; `berth ps` shows what came of it")]
    Gone,
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Standard output cannot be written.
    #[error("write the output: {0}")]
    Output(std::io::Error),
    /// The program that was executed ended with this code, which becomes the command's own.
    #[error("the program ended with code {0}")]
    Ended(u8),
    /// Everything has been said.
    #[error("")]
    Told,
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused(reason) | ApiError::Unavailable(reason) => Self::Refused(reason),
            ApiError::DBus(error) => Self::Broken(error),
        }
    }
}
