//! The keys that leave a container's terminal without ending anything in it: ctrl-p ctrl-q, as docker has them.

use std::str::FromStr;

/// A sequence of keys, and how much of it was typed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    sequence: Vec<u8>,
    typed: usize,
}

/// Not a sequence of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoKeys {
    key: String,
}

impl std::fmt::Display for NoKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:?} is no key; keys are like \"ctrl-p,ctrl-q\" or \"x\", with commas between them",
            self.key
        )
    }
}

impl std::error::Error for NoKeys {}

impl FromStr for Keys {
    type Err = NoKeys;

    fn from_str(text: &str) -> Result<Self, NoKeys> {
        let keys = text.split(',').filter(|_| !text.is_empty());
        Ok(Self { sequence: keys.map(byte).collect::<Result<_, _>>()?, typed: 0 })
    }
}

fn byte(key: &str) -> Result<u8, NoKeys> {
    let wrong = || NoKeys { key: key.to_owned() };
    match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
        // With the control key a terminal sends the lower five bits (ECMA-48, C0).
        (Some([letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')]), _) => Ok(letter & 0x1f),
        (None, [letter]) if letter.is_ascii_graphic() => Ok(*letter),
        _ => Err(wrong()),
    }
}

impl Keys {
    /// What is to be passed on of what was typed, and whether the sequence is complete. The beginning of a sequence is
    /// held back until it is none.
    pub fn filter(&mut self, text: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(text.len());
        for byte in text {
            if self.sequence.get(self.typed) != Some(byte) {
                passed.extend_from_slice(self.sequence.get(..self.typed).unwrap_or_default());
                self.typed = 0;
            }
            if self.sequence.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_or_control_keys() {
        let keys: Keys = "ctrl-p,ctrl-q".parse().unwrap();
        assert_eq!(keys.sequence, [0x10, 0x11]);
        assert_eq!("ctrl-],x".parse::<Keys>().unwrap().sequence, [0x1d, b'x']);
        assert_eq!("".parse::<Keys>().unwrap(), Keys::default());
        for text in ["ctrl-", "ctrl-pq", "xx", "a,", "ä"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_begins_like_the_sequence_is_held_back_and_not_lost() {
        let mut keys: Keys = "ctrl-p,ctrl-q".parse().unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn without_keys_everything_passes() {
        assert_eq!(Keys::default().filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
