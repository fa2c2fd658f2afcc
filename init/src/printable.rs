//! Text from elsewhere, for people: what a container has printed, or an image names, must not command the terminal that
//! shows it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with its control characters written as `\x1b`, as the kernel writes them in its log.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut told = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(told, "\\x{:02x}", u32::from(character));
        } else {
            told.push(character);
        }
    }
    Cow::Owned(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_command_nothing() {
        assert_eq!(printable("\x1b[2Jgone\u{9b}5n\r\x07"), "\\x1b[2Jgone\\x9b5n\\x0d\\x07");
        assert!(matches!(printable("größer als 3 µs: \\"), Cow::Borrowed(_)));
    }
}
