//! Writes containers.

use std::borrow::Borrow;

use super::{ARRAY, ENTRY, HEALTHS, KINDS, STATES};
use crate::message::{Container, Port};

/// What a container takes at least: room for that is asked for at once.
const USUAL_LENGTH: usize = 448;

/// Writes these containers.
#[must_use]
pub fn write(containers: impl IntoIterator<Item: Borrow<Container>>) -> Vec<u8> {
    let containers = containers.into_iter();
    let mut writer = Writer(Vec::with_capacity(containers.size_hint().0 * USUAL_LENGTH));
    writer.array(ARRAY, |writer| containers.for_each(|container| writer.container(container.borrow())));
    writer.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn container(&mut self, container: &Container) {
        // By name, so that none can be forgotten.
        let Container {
            name,
            kind,
            state,
            health,
            image,
            reason,
            pid,
            restarts,
            started_us,
            exit_code,
            addresses,
            ports,
        } = container;
        self.array(ENTRY, |writer| {
            writer.text_entry("Name", name);
            writer.text_entry("Kind", word(KINDS, *kind));
            writer.text_entry("State", word(STATES, *state));
            writer.text_entry("Health", word(HEALTHS, *health));
            writer.text_entry("Image", image);
            writer.text_entry("Reason", reason);
            writer.entry("Pid", "u", |writer| writer.number(pid.to_ne_bytes()));
            writer.entry("Restarts", "u", |writer| writer.number(restarts.to_ne_bytes()));
            writer.entry("StartedUs", "t", |writer| writer.number(started_us.to_ne_bytes()));
            writer.entry("ExitCode", "i", |writer| writer.number(exit_code.to_ne_bytes()));
            writer.entry("Addresses", "as", |writer| {
                writer.array(ARRAY, |writer| addresses.iter().for_each(|address| writer.text(address)));
            });
            writer.entry("Ports", "aa{sv}", |writer| {
                writer.array(ARRAY, |writer| ports.iter().for_each(|port| writer.port(port)));
            });
        });
    }

    fn port(&mut self, port: &Port) {
        let Port { host_address, host_port, container_port, protocol } = port;
        self.array(ENTRY, |writer| {
            writer.text_entry("HostAddress", host_address);
            writer.entry("HostPort", "q", |writer| writer.number(host_port.to_ne_bytes()));
            writer.entry("ContainerPort", "q", |writer| writer.number(container_port.to_ne_bytes()));
            writer.text_entry("Protocol", protocol);
        });
    }

    fn text_entry(&mut self, key: &str, text: &str) {
        self.entry(key, "s", |writer| writer.text(text));
    }

    /// A key and a variant.
    fn entry(&mut self, key: &str, signature: &str, value: impl FnOnce(&mut Self)) {
        self.pad(ENTRY);
        self.text(key);
        self.0.push(signature.len() as u8); // of those above, all shorter than 256
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
        value(self);
    }

    /// Its length in bytes, the padding before the first element, and the elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0_u32.to_ne_bytes());
        let length_at = self.0.len() - 4;
        self.pad(alignment);
        let begin = self.0.len();
        elements(self);
        let length = (self.0.len() - begin) as u32;
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.number((text.len() as u32).to_ne_bytes());
        if text.as_bytes().contains(&0) {
            // A reader refuses the whole message for it.
            self.0.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
        } else {
            self.0.extend_from_slice(text.as_bytes());
        }
        self.0.push(0);
    }

    /// A number is aligned to its own length.
    fn number<const LENGTH: usize>(&mut self, bytes: [u8; LENGTH]) {
        self.pad(LENGTH);
        self.0.extend_from_slice(&bytes);
    }

    fn pad(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }
}

/// The tables have every value; a test of the tables goes through them.
fn word<T: PartialEq>(words: &[(T, &'static str)], value: T) -> &'static str {
    words.iter().find(|(known, _)| *known == value).map_or("", |(_, word)| word)
}
