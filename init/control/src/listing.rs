//! Many containers in one piece, as D-Bus writes an `aa{sv}` (D-Bus specification, "Marshaling"): the body of the answer
//! to `org.berth.Containers1.List`.
//!
//! PID 1 writes it once, `control` passes the bytes on, and the `berth` command reads them: a thousand containers go
//! through three processes, and to describe each value anew in each of them, by its name and type, is what listing them
//! would cost. Numbers are in this machine's byte order. It says the same as `dbus::Container` does of one container, and
//! must not become a second place where that is decided: a test holds the two together.

mod reader;
mod writer;

pub use self::reader::read;
pub use self::writer::write;

use crate::message::{ContainerState, Health, Kind};

/// Of an array of dictionaries, beside its length: its elements begin with a length themselves.
const ARRAY: usize = 4;

/// Of an entry of a dictionary.
const ENTRY: usize = 8;

/// What stands before each value: see [`head`]. In the order in which they are written.
macro_rules! heads {
    ($($name:ident: $key:literal, $signature:literal, $alignment:literal;)*) => {
        $(const $name: &[u8] = &head::<{ head_length($key, $signature, $alignment) }>($key, $signature);)*
    };
}

heads! {
    NAME: "Name", "s", 4;
    KIND: "Kind", "s", 4;
    STATE: "State", "s", 4;
    HEALTH: "Health", "s", 4;
    IMAGE: "Image", "s", 4;
    REASON: "Reason", "s", 4;
    PID: "Pid", "u", 4;
    RESTARTS: "Restarts", "u", 4;
    STARTED_US: "StartedUs", "t", 8;
    EXIT_CODE: "ExitCode", "i", 4;
    ADDRESSES: "Addresses", "as", 4;
    PORTS: "Ports", "aa{sv}", 4;
    HOST_ADDRESS: "HostAddress", "s", 4;
    HOST_PORT: "HostPort", "q", 2;
    CONTAINER_PORT: "ContainerPort", "q", 2;
    FURTHER_PORTS: "FurtherPorts", "q", 2;
    PROTOCOL: "Protocol", "s", 4;
}

/// The key of an entry, the type of its value, and the padding to a value of this alignment: always the same, because an
/// entry begins at a multiple of the largest alignment.
const fn head<const LENGTH: usize>(key: &str, signature: &str) -> [u8; LENGTH] {
    let (mut bytes, mut at) = ([0; LENGTH], 0);
    let length = (key.len() as u32).to_ne_bytes();
    while at < length.len() {
        bytes[at] = length[at];
        at += 1;
    }
    let mut read = 0;
    while read < key.len() {
        bytes[at + read] = key.as_bytes()[read];
        read += 1;
    }
    at += key.len() + 1;
    bytes[at] = signature.len() as u8;
    read = 0;
    while read < signature.len() {
        bytes[at + 1 + read] = signature.as_bytes()[read];
        read += 1;
    }
    bytes
}

const fn head_length(key: &str, signature: &str, alignment: usize) -> usize {
    // Two lengths, of four bytes and of one, and a 0 behind each text.
    (4 + key.len() + 1 + 1 + signature.len() + 1).next_multiple_of(alignment)
}

/// How the kinds are written.
const KINDS: &[(Kind, &str)] = &[(Kind::System, "system"), (Kind::User, "user")];

/// How the states are written.
const STATES: &[(ContainerState, &str)] = &[
    (ContainerState::Declared, "declared"),
    (ContainerState::Waiting, "waiting"),
    (ContainerState::Preparing, "preparing"),
    (ContainerState::Starting, "starting"),
    (ContainerState::Running, "running"),
    (ContainerState::Unhealthy, "unhealthy"),
    (ContainerState::Paused, "paused"),
    (ContainerState::Stopping, "stopping"),
    (ContainerState::Backoff, "backoff"),
    (ContainerState::Stopped, "stopped"),
    (ContainerState::Failed, "failed"),
];

/// How what a health check says is written.
const HEALTHS: &[(Health, &str)] = &[
    (Health::None, "none"),
    (Health::Starting, "starting"),
    (Health::Healthy, "healthy"),
    (Health::Unhealthy, "unhealthy"),
];

#[cfg(all(test, feature = "dbus"))]
mod tests {
    use zbus::wire::serialized::{Context, Data};
    use zbus::wire::{NATIVE_ENDIAN, to_bytes};

    use super::*;
    use crate::dbus;
    use crate::message::{Container, Port};

    const NONE: [Container; 0] = [];

    fn containers() -> Vec<Container> {
        let port = |host_port| Port {
            host_address: "192.0.2.1".into(),
            host_port,
            container_port: 80,
            further_ports: 7,
            protocol: "tcp".into(),
        };
        let mut all = Vec::new();
        for (number, (state, _)) in STATES.iter().enumerate() {
            for (health, _) in HEALTHS {
                all.push(Container {
                    // Of every length, so that every padding is met.
                    name: "n".repeat(number + 1),
                    kind: if number % 2 == 0 { Kind::System } else { Kind::User },
                    state: *state,
                    health: *health,
                    image: "i".repeat(number % 5),
                    reason: "größer".repeat(number % 3),
                    pid: 17,
                    restarts: 3,
                    started_us: u64::MAX - 1,
                    exit_code: -1,
                    addresses: vec!["2001:db8::1".into(); number % 4],
                    ports: (0..number as u16 % 3).map(port).collect(),
                });
            }
        }
        all
    }

    #[test]
    fn it_is_what_d_bus_writes() {
        let containers = containers();
        let ours: Vec<dbus::Container> = containers.iter().cloned().map(Into::into).collect();
        let context = Context::new(NATIVE_ENDIAN, 0);
        let theirs = to_bytes(context, &ours).unwrap();
        assert_eq!(write(&containers), theirs.bytes());
        assert_eq!(write(NONE), to_bytes(context, &Vec::<dbus::Container>::new()).unwrap().bytes());
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&write(containers())).unwrap(), containers());
        assert_eq!(read(&write(NONE)).unwrap(), NONE);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_not_read() {
        let bytes = write(&containers()[..9]);
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn what_a_later_version_adds_is_left_to_others() {
        let bytes = write(containers());
        let at = bytes.windows(9).position(|window| window == b"Restarts\0").unwrap();
        let mut later = bytes.clone();
        later[at] = b'X';
        assert_eq!(read(&later), None);
        // Numbers that lead outside, in every place.
        for at in 0..bytes.len().min(2000) {
            let mut broken = bytes.clone();
            broken[at] = 0xff;
            let _ = read(&broken);
        }
    }

    #[test]
    fn a_text_that_d_bus_does_not_allow_does_not_spoil_the_others() {
        let mut containers = containers();
        containers[3].reason = "printed \0 and more".into();
        let bytes = write(&containers);
        let data = Data::new(&bytes[..], Context::new(NATIVE_ENDIAN, 0));
        let read: Vec<dbus::Container> = data.deserialize().unwrap().0;
        assert_eq!(read[3].reason, "printed   and more");
    }

    #[test]
    fn the_words_are_those_of_the_messages() {
        fn word(value: &impl serde::Serialize) -> String {
            serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
        }
        assert!(KINDS.iter().all(|(value, text)| word(value) == *text));
        assert!(STATES.iter().all(|(value, text)| word(value) == *text));
        assert!(HEALTHS.iter().all(|(value, text)| word(value) == *text));
    }
}
