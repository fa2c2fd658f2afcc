//! Which processors a container runs on.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that is no list of processors.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a list of processors")]
pub struct CpusetError {
    /// As written.
    pub text: String,
}

/// Numbers of processors and ranges of them, as the kernel takes them (cgroup-v2.rst, `cpuset.cpus`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cpuset(String);

text_value!(Cpuset, scalars, "processors by number, such as \"0-2,4\"");

impl FromStr for Cpuset {
    type Err = CpusetError;

    fn from_str(text: &str) -> Result<Self, CpusetError> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            number(first)?.le(&number(last)?).then_some(())
        };
        let parts: Option<Vec<()>> = text.split(',').map(range).collect();
        parts.map(|_| Self(text.to_owned())).ok_or_else(|| CpusetError { text: text.to_owned() })
    }
}

impl fmt::Display for Cpuset {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers_and_ranges() {
        for text in ["0", "0-2,4", "7,0-0"] {
            assert_eq!(text.parse::<Cpuset>().map(|set| set.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "0,", "2-1", "-1", "a", "0 1", "99999"] {
            assert!(text.parse::<Cpuset>().is_err(), "{text}");
        }
    }
}
