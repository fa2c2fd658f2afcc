//! Why a registry did not give what was asked for, in words for the owner of the machine.

use std::io;
use std::time::Duration;

use hyper::StatusCode;

use super::url::UrlError;
use crate::digest::Digest;
use crate::document::DocumentError;

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no connection.
    #[error("connect to {to}")]
    Connect {
        /// Host and port.
        to: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The proxy does not let through.
    #[error("the proxy {proxy} does not connect to {to}: it says {answer:?}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// Where to.
        to: String,
        /// Its first line.
        answer: String,
    },
    /// No TLS.
    #[error("speak TLS with {to}")]
    Tls {
        /// Host and port.
        to: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that the configuration names cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the connection to {to} broke")]
    Broken {
        /// Host and port.
        to: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// Nothing, or next to nothing, came for too long.
    #[error("{to} {what} within {} s", .within.as_secs())]
    Slow {
        /// Host and port.
        to: String,
        /// What it did not do.
        what: &'static str,
        /// The time it had.
        within: Duration,
    },
    /// It said no.
    #[error("{to} says {status}{}{detail}{}", if .detail.is_empty() { "" } else { ": " }, later(.retry_after))]
    Status {
        /// Host and port.
        to: String,
        /// Its code.
        status: StatusCode,
        /// Its reason, if it gave one.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It wants credentials, others than there are.
    #[error("{to} refuses {who}: {detail}{advice}")]
    Unauthorised {
        /// Host and port.
        to: String,
        /// As whom it was asked.
        who: String,
        /// Its reason.
        detail: String,
        /// What that may mean, and what to do.
        advice: String,
    },
    /// It leads nowhere.
    #[error("{to} redirects more than {limit} times")]
    Redirects {
        /// The host that was asked first.
        to: String,
        /// How often one is followed.
        limit: usize,
    },
    /// It leads from HTTPS to HTTP.
    #[error("{to} leads away from HTTPS, to {target}")]
    Downgrade {
        /// Who.
        to: String,
        /// Where to.
        target: String,
    },
    /// It leads to something that is no URL.
    #[error("{to} leads astray")]
    Url {
        /// Who.
        to: String,
        /// What is wrong with it.
        #[source]
        source: UrlError,
    },
    /// What came is not what HTTP or the distribution specification says.
    #[error("{to} answers with nonsense: {what}")]
    Malformed {
        /// Who.
        to: String,
        /// What is wrong.
        what: String,
    },
    /// A document is larger than believed.
    #[error("{what} of {to} has more than {limit} bytes")]
    TooLarge {
        /// Who.
        to: String,
        /// What.
        what: String,
        /// What is taken.
        limit: u64,
    },
    /// A blob is shorter or longer than the manifest says.
    #[error("{what} of {to} has {found} bytes, not {expected}")]
    Length {
        /// Who.
        to: String,
        /// What.
        what: String,
        /// As announced.
        expected: u64,
        /// As it came; at least, if it is more.
        found: u64,
    },
    /// Content and digest differ.
    #[error("{what} of {to} is damaged: its digest is {found}, not {expected}")]
    Digest {
        /// Who.
        to: String,
        /// What.
        what: String,
        /// As announced.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// What came is of a kind that is never taken.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The state partition cannot take it.
    #[error("write to the state partition")]
    Spool(#[source] io::Error),
    /// The state partition does not give what is to be sent.
    #[error("read from the state partition")]
    Read(#[source] io::Error),
}

/// What it said of when, for a person who may have to wait.
fn later(after: &Option<Duration>) -> String {
    let seconds = after.map_or(0, |after| after.as_secs());
    if seconds == 0 { String::new() } else { format!(" (it wants to be asked again in {seconds} s)") }
}

impl RegistryError {
    /// Whether the same request may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Slow { .. } => true,
            // What is wrong with a certificate stays wrong.
            Self::Tls { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }

    /// Whether it has no such thing.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether it does not know what is asked at all, as registries of before version 1.1 of the specification: they say so,
    /// or lead somewhere else.
    pub fn is_of_no_such_question(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                (status.is_client_error() || *status == StatusCode::NOT_IMPLEMENTED) && !self.is_passing()
            }
            Self::Redirects { .. } | Self::Downgrade { .. } | Self::Url { .. } | Self::TooLarge { .. } => true,
            _ => false,
        }
    }

    /// When the registry wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
