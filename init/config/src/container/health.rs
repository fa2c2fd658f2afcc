//! How Berth finds out whether a running container does its work.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Command;
use crate::quantities::TimeSpan;
use crate::text::text_value;

/// A health check: one of `exec`, `http` and `tcp`, and when. What is absent is the image's. The times and their defaults are
/// Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Whether nothing is checked, though the image says how.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub disable: bool,
    /// A program that is run in the container; it is well if the program ends with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Command>,
    /// A page that is fetched from inside the container's network; it is well if the status is from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
    /// An address inside the container's network; it is well if a connection is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTarget>,
    /// From the end of a check to the next; 30 s if absent, at least 100 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<TimeSpan>,
    /// How long a check may take before it counts as failed; 30 s if absent, at least 100 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeSpan>,
    /// How many failures in a row make it unhealthy; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<NonZeroU32>,
    /// How long failures do not count after the start; 0 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<TimeSpan>,
    /// From the end of a check to the next within the start period; 5 s if absent, at least 100 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<TimeSpan>,
}

impl Health {
    const INTERVAL: TimeSpan = TimeSpan::from_whole_seconds(30);
    const START_INTERVAL: TimeSpan = TimeSpan::from_whole_seconds(5);

    /// Whether it says what is checked.
    pub fn is_complete(&self) -> bool {
        self.exec.is_some() || self.http.is_some() || self.tcp.is_some()
    }

    /// With the image's for all that it does not say itself, as with Docker; none if nothing is to be checked.
    #[must_use]
    pub fn over(&self, image: Option<&Self>) -> Option<Self> {
        let (own, image) = (self.clone(), image.cloned().unwrap_or_default());
        let check = if own.is_complete() { own.clone() } else { image.clone() };
        let merged = Self {
            disable: own.disable,
            interval: own.interval.or(image.interval),
            timeout: own.timeout.or(image.timeout),
            retries: own.retries.or(image.retries),
            start_period: own.start_period.or(image.start_period),
            start_interval: own.start_interval.or(image.start_interval),
            ..check
        };
        (merged.is_complete() && !merged.disable).then_some(merged)
    }

    /// `interval` or its default.
    pub fn interval(&self) -> TimeSpan {
        self.interval.unwrap_or(Self::INTERVAL)
    }

    /// `timeout` or its default.
    pub fn timeout(&self) -> TimeSpan {
        self.timeout.unwrap_or(Self::INTERVAL)
    }

    /// `retries` or its default.
    pub fn retries(&self) -> u32 {
        self.retries.map_or(3, NonZeroU32::get)
    }

    /// `start_period` or its default.
    pub fn start_period(&self) -> TimeSpan {
        self.start_period.unwrap_or(TimeSpan::from_whole_seconds(0))
    }

    /// `start_interval` or its default.
    pub fn start_interval(&self) -> TimeSpan {
        self.start_interval.unwrap_or(Self::START_INTERVAL)
    }
}

/// Text that says no place to look at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// No address and port.
    #[error("{text:?} is no address; `localhost` and numbers are, such as 127.0.0.1:80 and [::1]:80")]
    Address {
        /// The part that is wrong.
        text: String,
    },
    /// A port that is none.
    #[error("{text:?} is no port from 1 to 65535")]
    Port {
        /// The part that is wrong.
        text: String,
    },
    /// Something else than plain HTTP.
    #[error("it must begin with http://; certificates are not checked from here")]
    Scheme,
    /// Blanks and the like.
    #[error("the path must be of visible ASCII characters")]
    Path,
}

/// `http://address[:port][/path]`; the address is a number or `localhost`, because names are resolved nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpTarget {
    address: SocketAddr,
    path: String,
}

text_value!(HttpTarget, "a URL such as \"http://127.0.0.1:8080/health\"");

impl HttpTarget {
    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// With its first slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for HttpTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let rest = text.strip_prefix("http://").ok_or(TargetError::Scheme)?;
        let (place, path) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash).unwrap_or((rest, "/")),
            None => (rest, "/"),
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Path);
        }
        let bare = place.starts_with('[') && place.ends_with(']') || !place.contains(':');
        let address = if bare { address(&format!("{place}:80"))? } else { address(place)? };
        Ok(Self { address, path: path.to_owned() })
    }
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "http://{}{}", self.address, self.path)
    }
}

/// `address:port`, or a port of 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpTarget(SocketAddr);

text_value!(TcpTarget, scalars, "a port such as 5432, or an address such as \"127.0.0.1:5432\"");

impl TcpTarget {
    /// Where to connect.
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for TcpTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains(':') { Ok(Self(address(text)?)) } else { Ok(Self((Ipv4Addr::LOCALHOST, port(text)?).into())) }
    }
}

impl fmt::Display for TcpTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

fn address(text: &str) -> Result<SocketAddr, TargetError> {
    let wrong = || TargetError::Address { text: text.to_owned() };
    let (host, number) = text.rsplit_once(':').ok_or_else(wrong)?;
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .parse()
            .map_err(|_| wrong())?,
    };
    Ok(SocketAddr::new(ip, port(number)?))
}

fn port(text: &str) -> Result<u16, TargetError> {
    let number = text.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| TargetError::Port { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_images() {
        let health = |text: &str| -> Health { toml::from_str(text).unwrap() };
        let image = health("exec = ['/check']\ninterval = '5s'\nretries = 7");
        let over = |own: &str, image: Option<&Health>| health(own).over(image);
        let wanted = health("exec = ['/check']\ninterval = '1s'\nretries = 7\ntimeout = '2s'");
        assert_eq!(over("interval = '1s'\ntimeout = '2s'", Some(&image)), Some(wanted));
        let wanted = health("tcp = 80\ninterval = '5s'\nretries = 7");
        assert_eq!(over("tcp = 80", Some(&image)), Some(wanted), "no second kind");
        assert_eq!(over("tcp = 80", None), Some(health("tcp = 80")));
        assert_eq!(over("interval = '1s'", None), None, "there is nothing to check");
        assert_eq!(over("disable = true", Some(&image)), None);
    }

    #[test]
    fn a_page_has_an_address_and_a_path() {
        let read = |text: &str| text.parse::<HttpTarget>().map(|target| target.to_string());
        assert_eq!(read("http://localhost"), Ok("http://127.0.0.1:80/".into()));
        assert_eq!(read("http://127.0.0.1:8080/health?full=1"), Ok("http://127.0.0.1:8080/health?full=1".into()));
        assert_eq!(read("http://[::1]/x"), Ok("http://[::1]:80/x".into()));
        assert_eq!(read("https://localhost/"), Err(TargetError::Scheme));
        assert_eq!(read("http://localhost/a b"), Err(TargetError::Path));
        for text in ["http://", "http://web/", "http://127.0.0.1:/", "http://127.0.0.1:0/", "http://127.0.0.1:99999/"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_the_containers_own() {
        let read = |text: &str| text.parse::<TcpTarget>().map(|target| target.to_string());
        assert_eq!(read("5432"), Ok("127.0.0.1:5432".into()));
        assert_eq!(read("[::1]:5432"), Ok("[::1]:5432".into()));
        for text in ["", "0", "db:5432", "-1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
