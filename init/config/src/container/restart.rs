//! What happens when a container's process ends.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a restart policy")]
pub struct RestartError {
    /// As written.
    pub text: String,
}

/// When the container is started again.
///
/// Unlike Compose the default is `always`, as Kubernetes and Balena have it: the configuration is the state that the
/// machine is wanted in, there is nobody at a terminal to start things by hand, and a container that is missing after
/// a crash or a reboot is what people complain about. A job that is done when it is done says `on-failure` or `no`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RestartPolicy {
    /// Not at all; it still starts at each boot.
    No,
    /// When the process failed (a status other than 0, or a signal).
    OnFailure {
        /// How often in a row; without a limit if `None`.
        attempts: Option<NonZeroU32>,
    },
    /// Always. A container stopped by hand stays stopped until the next boot.
    #[default]
    Always,
    /// Always, but a container stopped by hand stays stopped over the next boots too.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether another run follows one that ended like this by itself. `failures` is how many have failed in a row by then.
    pub fn goes_on(self, succeeded: bool, failures: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { attempts } => !succeeded && attempts.is_none_or(|most| failures <= most.get()),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

text_value!(RestartPolicy, "\"no\", \"on-failure\", \"on-failure:5\", \"always\" or \"unless-stopped\"");

impl FromStr for RestartPolicy {
    type Err = RestartError;

    fn from_str(text: &str) -> Result<Self, RestartError> {
        Ok(match text {
            "no" | "never" => Self::No,
            "on-failure" => Self::OnFailure { attempts: None },
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            _ => match text.strip_prefix("on-failure:").map(str::parse) {
                Some(Ok(attempts)) => Self::OnFailure { attempts: Some(attempts) },
                _ => return Err(RestartError { text: text.to_owned() }),
            },
        })
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::No => formatter.write_str("no"),
            Self::OnFailure { attempts: None } => formatter.write_str("on-failure"),
            Self::OnFailure { attempts: Some(attempts) } => write!(formatter, "on-failure:{attempts}"),
            Self::Always => formatter.write_str("always"),
            Self::UnlessStopped => formatter.write_str("unless-stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_shown() {
        for text in ["no", "on-failure", "on-failure:5", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().map(|policy| policy.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("never".parse(), Ok(RestartPolicy::No));
        for text in ["", "on-failure:", "on-failure:0", "on-failure:-1", "Always", "on_failure"] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
        }
    }
}
