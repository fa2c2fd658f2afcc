//! Reads containers: only what this version writes. Anything else, such as a key of a later version, is left to zbus,
//! which knows all of D-Bus.

use super::{ARRAY, ENTRY, HEALTHS, KINDS, STATES};
use crate::message::{Container, ContainerState, Health, Kind, Port};

/// How many keys there are of a container, each once.
const CONTAINER_KEYS: usize = 12;

/// How many there are of a port.
const PORT_KEYS: usize = 4;

/// Reads what [`super::write`] has written; `None` if that is anything else.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Vec<Container>> {
    let mut reader = Reader { bytes, at: 0 };
    let containers = reader.array(ARRAY, Reader::container)?;
    (reader.at == bytes.len()).then_some(containers)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn container(&mut self) -> Option<Container> {
        let mut container = Container {
            name: String::new(),
            kind: Kind::User,
            state: ContainerState::Declared,
            health: Health::None,
            image: String::new(),
            reason: String::new(),
            pid: 0,
            restarts: 0,
            started_us: 0,
            exit_code: 0,
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        self.dictionary(CONTAINER_KEYS, |reader, key| {
            match key {
                "Name" => container.name = reader.text_value()?.to_owned(),
                "Kind" => container.kind = value(KINDS, reader.text_value()?)?,
                "State" => container.state = value(STATES, reader.text_value()?)?,
                "Health" => container.health = value(HEALTHS, reader.text_value()?)?,
                "Image" => container.image = reader.text_value()?.to_owned(),
                "Reason" => container.reason = reader.text_value()?.to_owned(),
                "Pid" => container.pid = u32::from_ne_bytes(reader.number_value("u")?),
                "Restarts" => container.restarts = u32::from_ne_bytes(reader.number_value("u")?),
                "StartedUs" => container.started_us = u64::from_ne_bytes(reader.number_value("t")?),
                "ExitCode" => container.exit_code = i32::from_ne_bytes(reader.number_value("i")?),
                "Addresses" => {
                    reader.signature("as")?;
                    container.addresses = reader.array(ARRAY, |reader| reader.text().map(str::to_owned))?;
                }
                "Ports" => {
                    reader.signature("aa{sv}")?;
                    container.ports = reader.array(ARRAY, Self::port)?;
                }
                _ => return None,
            }
            Some(())
        })?;
        Some(container)
    }

    fn port(&mut self) -> Option<Port> {
        let mut port = Port { host_address: String::new(), host_port: 0, container_port: 0, protocol: String::new() };
        self.dictionary(PORT_KEYS, |reader, key| {
            match key {
                "HostAddress" => port.host_address = reader.text_value()?.to_owned(),
                "HostPort" => port.host_port = u16::from_ne_bytes(reader.number_value("q")?),
                "ContainerPort" => port.container_port = u16::from_ne_bytes(reader.number_value("q")?),
                "Protocol" => port.protocol = reader.text_value()?.to_owned(),
                _ => return None,
            }
            Some(())
        })?;
        Some(port)
    }

    /// So many entries.
    fn dictionary(&mut self, keys: usize, mut entry: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        let entries = self.array(ENTRY, |reader| {
            reader.skip_padding(ENTRY)?;
            let key = reader.text()?;
            entry(reader, key)
        })?;
        (entries.len() == keys).then_some(())
    }

    fn array<T>(&mut self, alignment: usize, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(u32::from_ne_bytes(self.number()?)).ok()?;
        self.skip_padding(alignment)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let mut elements = Vec::new();
        while self.at < end {
            elements.push(element(self)?);
        }
        (self.at == end).then_some(elements)
    }

    fn text_value(&mut self) -> Option<&'a str> {
        self.signature("s")?;
        self.text()
    }

    fn number_value<const LENGTH: usize>(&mut self, signature: &str) -> Option<[u8; LENGTH]> {
        self.signature(signature)?;
        self.number()
    }

    fn signature(&mut self, expected: &str) -> Option<()> {
        let [length] = self.number()?;
        (self.terminated(usize::from(length))? == expected.as_bytes()).then_some(())
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(u32::from_ne_bytes(self.number()?)).ok()?;
        std::str::from_utf8(self.terminated(length)?).ok()
    }

    /// So many bytes, with a 0 behind.
    fn terminated(&mut self, length: usize) -> Option<&'a [u8]> {
        let text = self.take(length)?;
        (self.take(1)? == [0]).then_some(text)
    }

    fn number<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.skip_padding(LENGTH)?;
        self.take(LENGTH)?.try_into().ok()
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
