//! Writes containers.

use std::borrow::Borrow;

use super::*;
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
            writer.text_entry(NAME, name);
            writer.text_entry(KIND, word(KINDS, *kind));
            writer.text_entry(STATE, word(STATES, *state));
            writer.text_entry(HEALTH, word(HEALTHS, *health));
            writer.text_entry(IMAGE, image);
            writer.text_entry(REASON, reason);
            writer.number_entry(PID, &pid.to_ne_bytes());
            writer.number_entry(RESTARTS, &restarts.to_ne_bytes());
            writer.number_entry(STARTED_US, &started_us.to_ne_bytes());
            writer.number_entry(EXIT_CODE, &exit_code.to_ne_bytes());
            writer.begin(ADDRESSES);
            writer.array(ARRAY, |writer| addresses.iter().for_each(|address| writer.text(address)));
            writer.begin(PORTS);
            writer.array(ARRAY, |writer| ports.iter().for_each(|port| writer.port(port)));
        });
    }

    fn port(&mut self, port: &Port) {
        let Port { host_address, host_port, container_port, further_ports, protocol } = port;
        self.array(ENTRY, |writer| {
            writer.text_entry(HOST_ADDRESS, host_address);
            writer.number_entry(HOST_PORT, &host_port.to_ne_bytes());
            writer.number_entry(CONTAINER_PORT, &container_port.to_ne_bytes());
            writer.number_entry(FURTHER_PORTS, &further_ports.to_ne_bytes());
            writer.text_entry(PROTOCOL, protocol);
        });
    }

    fn text_entry(&mut self, head: &[u8], text: &str) {
        self.begin(head);
        self.text(text);
    }

    fn number_entry(&mut self, head: &[u8], bytes: &[u8]) {
        self.begin(head);
        self.0.extend_from_slice(bytes);
    }

    /// Begins an entry: what follows is its value.
    fn begin(&mut self, head: &[u8]) {
        self.pad(ENTRY);
        self.0.extend_from_slice(head);
    }

    /// Its length in bytes, the padding before the first element, and the elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.length(0);
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
        self.length(text.len());
        if text.as_bytes().contains(&0) {
            // A reader refuses the whole message for it.
            self.0.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
        } else {
            self.0.extend_from_slice(text.as_bytes());
        }
        self.0.push(0);
    }

    fn length(&mut self, length: usize) {
        self.pad(4);
        self.0.extend_from_slice(&(length as u32).to_ne_bytes());
    }

    fn pad(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }
}

/// The tables have every value; a test of the tables goes through them.
fn word<T: PartialEq>(words: &[(T, &'static str)], value: T) -> &'static str {
    words.iter().find(|(known, _)| *known == value).map_or("", |(_, word)| word)
}
