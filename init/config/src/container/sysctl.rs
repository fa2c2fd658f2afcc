//! Kernel settings, of the machine or of a container.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::text::{Text, text_value};

/// Why text names no kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name:?} cannot be the name of a kernel setting")]
pub struct SysctlError {
    /// As written.
    pub name: String,
}

/// The name of a setting below /proc/sys: `net.ipv4.ip_forward`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlName(String);

text_value!(SysctlName, "a name in quotation marks, such as \"net.core.somaxconn\"");

impl FromStr for SysctlName {
    type Err = SysctlError;

    fn from_str(name: &str) -> Result<Self, SysctlError> {
        // sysctl(8) also takes the path; a dot in an interface's name is written as a slash by both.
        let mut components = name.split('.');
        let good = name.len() <= 255
            && name.contains('.')
            && components.all(|component| {
                !component.is_empty()
                    && component
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b':' | b'@'))
                    && component.split('/').all(|part| !part.is_empty())
            });
        if good { Ok(Self(name.to_owned())) } else { Err(SysctlError { name: name.to_owned() }) }
    }
}

impl fmt::Display for SysctlName {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A value; numbers and booleans stand for their text, booleans for 1 and 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SysctlValue(String);

crate::text::described!(SysctlValue, { "type": ["string", "number", "boolean"] });

impl<'de> Deserialize<'de> for SysctlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text { expected: "text or a number", scalars: true }.read(deserializer)?;
        Ok(Self(match text.as_str() {
            "true" => "1".to_owned(),
            "false" => "0".to_owned(),
            _ => text,
        }))
    }
}

/// Kernel settings by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sysctls(BTreeMap<SysctlName, SysctlValue>);

impl Sysctls {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.0.as_str(), value.0.as_str()))
    }

    /// The setting's file: dots are slashes, and slashes are the dots of an interface's name.
    pub fn path(name: &str) -> PathBuf {
        let swap = |character| match character {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        Path::new("/proc/sys").join(name.chars().map(swap).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_proc_sys() {
        for name in
            ["vm.swappiness", "net.ipv4.conf.eth0/1.forwarding", "fs.mqueue.msg_max", "net.ipv4.conf.br-lan.arp_ignore"]
        {
            assert!(name.parse::<SysctlName>().is_ok(), "{name}");
        }
        for name in ["", "vm", "..", "a..b", ".a", "a.", "a.b/../c", "/a.b", "a.b/", "a.b c", "a.ä"] {
            assert!(name.parse::<SysctlName>().is_err(), "{name}");
        }
        let path = Sysctls::path("net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/conf/eth0.1/forwarding"));
    }
}
