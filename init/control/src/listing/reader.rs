//! Reads containers: only what this version writes, in its order. Anything else, such as a key of a later version, is left
//! to zbus, which knows all of D-Bus.

use super::*;
use crate::message::{Container, Port};

/// Reads what [`super::write`] has written; `None` if that is anything else.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Vec<Container>> {
    let mut reader = Reader { bytes, at: 0 };
    let containers = reader.list(bytes.len() / LEAST_LENGTH, Reader::container)?;
    (reader.at == bytes.len()).then_some(containers)
}

/// What a container takes at least: there are not more in as many bytes.
const LEAST_LENGTH: usize = 288;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn container(&mut self) -> Option<Container> {
        let end = self.array(ENTRY)?;
        let container = Container {
            name: self.text_of(NAME)?.to_owned(),
            kind: value(KINDS, self.text_of(KIND)?)?,
            state: value(STATES, self.text_of(STATE)?)?,
            health: value(HEALTHS, self.text_of(HEALTH)?)?,
            image: self.text_of(IMAGE)?.to_owned(),
            reason: self.text_of(REASON)?.to_owned(),
            pid: u32::from_ne_bytes(self.number_of(PID)?),
            restarts: u32::from_ne_bytes(self.number_of(RESTARTS)?),
            started_us: u64::from_ne_bytes(self.number_of(STARTED_US)?),
            exit_code: i32::from_ne_bytes(self.number_of(EXIT_CODE)?),
            addresses: {
                self.begin(ADDRESSES)?;
                self.list(0, |reader| reader.text().map(str::to_owned))?
            },
            ports: {
                self.begin(PORTS)?;
                self.list(0, Self::port)?
            },
        };
        (self.at == end).then_some(container)
    }

    fn port(&mut self) -> Option<Port> {
        let end = self.array(ENTRY)?;
        let port = Port {
            host_address: self.text_of(HOST_ADDRESS)?.to_owned(),
            host_port: u16::from_ne_bytes(self.number_of(HOST_PORT)?),
            container_port: u16::from_ne_bytes(self.number_of(CONTAINER_PORT)?),
            further_ports: u16::from_ne_bytes(self.number_of(FURTHER_PORTS)?),
            protocol: self.text_of(PROTOCOL)?.to_owned(),
        };
        (self.at == end).then_some(port)
    }

    /// Room for so many is asked for at once.
    fn list<T>(&mut self, usual: usize, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let end = self.array(ARRAY)?;
        let mut elements = Vec::with_capacity(usual);
        while self.at < end {
            elements.push(element(self)?);
        }
        (self.at == end).then_some(elements)
    }

    /// Begins an array; where it ends.
    fn array(&mut self, alignment: usize) -> Option<usize> {
        let length = self.length()?;
        self.skip_padding(alignment)?;
        self.at.checked_add(length).filter(|end| *end <= self.bytes.len())
    }

    fn text_of(&mut self, head: &[u8]) -> Option<&'a str> {
        self.begin(head)?;
        self.text()
    }

    fn number_of<const LENGTH: usize>(&mut self, head: &[u8]) -> Option<[u8; LENGTH]> {
        self.begin(head)?;
        self.take(LENGTH)?.try_into().ok()
    }

    /// Begins an entry: what follows is its value.
    fn begin(&mut self, head: &[u8]) -> Option<()> {
        self.skip_padding(ENTRY)?;
        (self.take(head.len())? == head).then_some(())
    }

    /// With a 0 behind.
    fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        let text = self.take(length)?;
        (self.take(1)? == [0]).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    fn length(&mut self) -> Option<usize> {
        self.skip_padding(4)?;
        usize::try_from(u32::from_ne_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    fn skip_padding(&mut self, alignment: usize) -> Option<()> {
        self.take(self.at.next_multiple_of(alignment) - self.at).map(drop)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
}

fn value<T: Copy>(words: &[(T, &str)], word: &str) -> Option<T> {
    words.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
}
