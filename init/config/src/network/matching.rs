//! Which links an entry is for.

use serde::{Deserialize, Serialize};

use crate::names::NameError;
use crate::text::checked_string;

/// What is known about a link of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkIdentity<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// The hardware address, `52:54:00:12:34:56`; empty if there is none.
    pub mac: &'a str,
    /// The kernel driver; empty if there is none.
    pub driver: &'a str,
    /// Where the device sits, as [`Hardware`](super::Hardware) has it; empty if unknown.
    pub path: &'a str,
}

/// `match`: every key that is there must fit; at least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LinkMatch {
    /// The kernel's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Pattern>,
    /// The hardware address, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Pattern>,
    /// The kernel driver, such as `virtio_net`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Pattern>,
    /// Where the device sits, from the nearest PCI or platform device on: `pci-0000:00:03.0`,
    /// `pci-0000:00:14.0-usb-0:2:1.0` or `platform-fd580000.ethernet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Pattern>,
}

impl LinkMatch {
    /// Whether the link is meant. An empty table means none.
    pub fn fits(&self, link: &LinkIdentity) -> bool {
        let pairs =
            [(&self.name, link.name), (&self.mac, link.mac), (&self.driver, link.driver), (&self.path, link.path)];
        let mut wanted = pairs.into_iter().filter_map(|(pattern, text)| Some((pattern.as_ref()?, text))).peekable();
        wanted.peek().is_some() && wanted.all(|(pattern, text)| pattern.fits(text))
    }
}

checked_string! {
    /// Text in which `*` stands for any characters and `?` for one. Case does not count.
    Pattern, NameError, check_pattern, "text in which \"*\" stands for anything, such as \"52:54:00:*\""
}

fn check_pattern(text: &str) -> Result<(), NameError> {
    match text.chars().find(|character| !character.is_ascii_graphic()) {
        _ if text.is_empty() => Err(NameError::Empty),
        _ if text.len() > 255 => Err(NameError::TooLong { length: text.len(), limit: 255 }),
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

impl Pattern {
    /// Whether the whole text fits.
    pub fn fits(&self, text: &str) -> bool {
        fits(self.as_str().as_bytes(), text.as_bytes())
    }
}

/// In linear space and at most quadratic time: only the last `*` is ever tried again.
fn fits(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', behind)), _) => {
                retry = Some((behind, text));
                pattern = behind;
            }
            (Some((wanted, next_pattern)), Some((found, next_text)))
                if *wanted == b'?' || wanted.eq_ignore_ascii_case(found) =>
            {
                (pattern, text) = (next_pattern, next_text);
            }
            _ => match retry.and_then(|(behind, from)| Some((behind, from.split_first()?.1))) {
                Some((behind, from)) => {
                    retry = Some((behind, from));
                    (pattern, text) = (behind, from);
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        let fits = |pattern: &str, text: &str| pattern.parse::<Pattern>().is_ok_and(|pattern| pattern.fits(text));
        for (pattern, text) in [
            ("*", ""),
            ("*", "eth0"),
            ("en*", "enp0s3"),
            ("52:54:00:*", "52:54:00:12:34:56"),
            ("AA:bb:*", "aa:BB:cc"),
            ("*a*b*", "xxaxxbxx"),
            ("e?h0", "eth0"),
            ("**", "x"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("en*", "eth0"), ("e?h0", "eh0"), ("eth", "eth0"), ("*a", "ab"), ("?", ""), ("a*b*c", "acb")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        // Exponential in a naive matcher.
        assert!(!fits(&format!("{}b", "*a".repeat(120)), &"a".repeat(5_000)));
    }

    #[test]
    fn an_empty_match_fits_nothing() {
        assert!(!LinkMatch::default().fits(&LinkIdentity::default()));
    }
}
