//! Signals by name or number.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no signal {text:?}")]
pub struct SignalError {
    /// As written.
    pub text: String,
}

/// The numbers of x86 and ARM, which signal(7) lists; index 0 is signal 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The kernel's first and last real-time signal. A C library keeps the first ones for itself: what programs call
/// SIGRTMIN is 34 with glibc (systemd's SIGRTMIN+3 is 37), and the images that ask for it mean that.
const REAL_TIME: std::ops::RangeInclusive<u8> = 34..=64;

/// A signal: between 1 and 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

text_value!(Signal, scalars, "a signal such as \"SIGTERM\", \"INT\", \"SIGRTMIN+3\" or 15");

impl Signal {
    /// SIGTERM, which asks a process to end.
    pub const TERM: Self = Self(15);

    /// As kill(2) takes it.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let error = || SignalError { text: text.to_owned() };
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(position) = NAMES.iter().position(|known| *known == name) {
            return u8::try_from(position + 1).map(Self).map_err(|_| error());
        }
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(*REAL_TIME.start()),
            (_, Some("")) => Some(*REAL_TIME.end()),
            (Some(offset), _) => parse_offset(offset, '+').and_then(|offset| REAL_TIME.start().checked_add(offset)),
            (_, Some(offset)) => parse_offset(offset, '-').and_then(|offset| REAL_TIME.end().checked_sub(offset)),
            (None, None) => {
                return match text.parse() {
                    Ok(number) if (1..=64).contains(&number) => Ok(Self(number)),
                    _ => Err(error()),
                };
            }
        };
        number.filter(|number| REAL_TIME.contains(number)).map(Self).ok_or_else(error)
    }
}

fn parse_offset(text: &str, sign: char) -> Option<u8> {
    text.strip_prefix(sign)?.parse().ok()
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let name = self.0.checked_sub(1).and_then(|index| NAMES.get(usize::from(index)));
        match (name, self.0.checked_sub(*REAL_TIME.start())) {
            (Some(name), _) => write!(formatter, "SIG{name}"),
            (None, Some(offset)) => write!(formatter, "SIGRTMIN+{offset}"),
            (None, None) => write!(formatter, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let number = |text: &str| text.parse::<Signal>().map(Signal::number).ok();
        for (text, wanted) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("SIGSYS", 31),
        ] {
            assert_eq!(number(text), Some(wanted), "{text}");
        }
        for text in ["", "0", "65", "SIG", "SIGFOO", "RTMIN+31", "RTMAX+1", "RTMAX-40", "-1", "256"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn every_signal_is_read_as_it_is_shown() {
        for number in 1..=64_u8 {
            let signal: Signal = number.to_string().parse().expect("it is a signal");
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
