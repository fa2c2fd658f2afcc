//! Cutting the port's byte stream into requests.
//!
//! A request is one JSON object; nothing but its braces says where it ends. The byte 0xFF, which no JSON contains,
//! drops what has come so far (the client sends it before `guest-sync-delimited`). Anything malformed is reported
//! once, and the stream is in step again at the next line: so a client that died in the middle of a request cannot
//! keep the next one out. Memory is bounded by [`MAXIMUM_REQUEST`].

use std::collections::VecDeque;

/// The largest request in bytes. Writes through `guest-file-write` may come in as many requests as they need, and the
/// whole machine may have 96 MiB.
pub const MAXIMUM_REQUEST: usize = 4 << 20;

/// What the stream contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The bytes from an opening brace to the closing one; not yet checked to be JSON.
    Object(Vec<u8>),
    /// Bytes that are no part of any object.
    Malformed,
    /// An object longer than [`MAXIMUM_REQUEST`].
    TooLong,
}

/// Where in the stream the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before an object.
    Between,
    /// In an object, outside its strings.
    Object,
    /// In a string.
    String,
    /// Behind a backslash in a string.
    Escape,
    /// After something malformed, until the end of the line.
    Skip,
}

/// The state between two reads.
#[derive(Debug)]
pub struct Frames {
    place: Place,
    depth: usize,
    object: Vec<u8>,
    complete: VecDeque<Frame>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { place: Place::Between, depth: 0, object: Vec::new(), complete: VecDeque::new() }
    }
}

impl Frames {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push_byte(*byte);
        }
    }

    /// The next thing that is complete.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.complete.pop_front()
    }

    fn push_byte(&mut self, byte: u8) {
        match (self.place, byte) {
            (_, 0xff) => self.restart(Place::Between),
            (Place::Skip, b'\n') => self.restart(Place::Between),
            (Place::Skip, _) => {}
            (Place::Between, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Place::Between, b'{') => {
                self.place = Place::Object;
                self.keep(byte);
                self.depth = 1;
            }
            (Place::Between, _) => self.fail(Frame::Malformed, Place::Skip),
            // JSON has no line break inside a string: this one belongs to a client that lost its place.
            (Place::String | Place::Escape, b'\n') => self.fail(Frame::Malformed, Place::Between),
            (Place::String, b'\\') => self.keep_and_go(byte, Place::Escape),
            (Place::String, b'"') => self.keep_and_go(byte, Place::Object),
            (Place::Escape, _) => self.keep_and_go(byte, Place::String),
            (Place::Object, b'"') => self.keep_and_go(byte, Place::String),
            (Place::Object, b'{' | b'[') => {
                self.depth += 1;
                self.keep(byte);
            }
            (Place::Object, b'}' | b']') => {
                self.depth -= 1;
                self.keep(byte);
                if self.depth == 0 && self.place == Place::Object {
                    let object = std::mem::take(&mut self.object);
                    self.complete.push_back(Frame::Object(object));
                    self.place = Place::Between;
                }
            }
            (Place::String | Place::Object, _) => self.keep(byte),
        }
    }

    fn keep_and_go(&mut self, byte: u8, place: Place) {
        self.place = place;
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        if self.object.len() == MAXIMUM_REQUEST {
            self.fail(Frame::TooLong, Place::Skip);
        } else {
            self.object.push(byte);
        }
    }

    fn fail(&mut self, frame: Frame, next: Place) {
        self.restart(next);
        self.complete.push_back(frame);
    }

    fn restart(&mut self, place: Place) {
        self.object = Vec::new();
        self.depth = 0;
        self.place = place;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Frames::default();
        frames.push(bytes);
        std::iter::from_fn(|| frames.next_frame()).collect()
    }

    fn object(text: &str) -> Frame {
        Frame::Object(text.as_bytes().to_vec())
    }

    #[test]
    fn objects_need_nothing_between_them() {
        assert_eq!(
            frames(br#"{"a":{}}{"b":[1,{}]} {}"#),
            [object(r#"{"a":{}}"#), object(r#"{"b":[1,{}]}"#), object("{}")]
        );
    }

    #[test]
    fn braces_and_quotes_in_strings_do_not_count() {
        let text = r#"{"a":"}\"}{\\"}"#;
        assert_eq!(frames(text.as_bytes()), [object(text)]);
    }

    #[test]
    fn a_flush_byte_drops_an_unfinished_object_silently() {
        assert_eq!(frames(b"{\"a\":\"{{{\xff{}"), [object("{}")]);
    }

    #[test]
    fn nonsense_is_reported_once_and_ends_with_its_line() {
        assert_eq!(frames(b"GET / HTTP/1.1 {}\n{}"), [Frame::Malformed, object("{}")]);
    }

    #[test]
    fn a_line_break_in_a_string_brings_the_stream_in_step() {
        assert_eq!(frames(b"{\"a\":\"lost\n{}"), [Frame::Malformed, object("{}")]);
    }

    #[test]
    fn an_endless_object_is_refused_and_not_kept() {
        let mut stream = vec![b'{'];
        stream.resize(MAXIMUM_REQUEST + 10, b' ');
        stream.extend(b"}\n{}");
        assert_eq!(frames(&stream), [Frame::TooLong, object("{}")]);
    }

    #[test]
    fn the_longest_object_still_fits() {
        let mut stream = vec![b' '; MAXIMUM_REQUEST];
        stream[0] = b'{';
        stream[MAXIMUM_REQUEST - 1] = b'}';
        assert_eq!(frames(&stream), [Frame::Object(stream.clone())]);
    }

    proptest! {
        #[test]
        fn any_bytes_leave_the_stream_usable(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while frames.next_frame().is_some() {}
            frames.push(b"\xff{\"execute\":\"guest-ping\"}");
            prop_assert_eq!(frames.next_frame(), Some(object(r#"{"execute":"guest-ping"}"#)));
        }

        #[test]
        fn a_split_anywhere_changes_nothing(bytes in "[{}\\[\\]\"\\\\ a\n]{0,80}", at in 0usize..80) {
            let at = at.min(bytes.len());
            let mut split = Frames::default();
            split.push(&bytes.as_bytes()[..at]);
            split.push(&bytes.as_bytes()[at..]);
            let split: Vec<Frame> = std::iter::from_fn(|| split.next_frame()).collect();
            prop_assert_eq!(split, frames(bytes.as_bytes()));
        }
    }
}
