//! The answer to `List`: PID 1's own bytes, which are the body of the message.

use berth_control::dbus::Container;
use berth_control::listing;
use serde::{Serialize, Serializer};
use zbus::message::{EndianSig, Header, NATIVE_ENDIAN_SIG};
use zbus::{Signature, Type};

/// How many bytes of the body are the array's length, which zbus writes itself.
const LENGTH: usize = 4;

/// All containers, as `aa{sv}`.
#[derive(Debug)]
pub enum Listing {
    /// As PID 1 has written them.
    Written(Vec<u8>),
    /// For a client whose bytes are the other way round: its answer has to be so too.
    Turned(Vec<Container>),
}

impl Listing {
    /// For the sender of this message; `None` if the bytes are no listing.
    pub fn for_caller(bytes: Vec<u8>, header: &Header<'_>) -> Option<Self> {
        if is_ours(header.primary().endian_sig()) {
            return Some(Self::Written(bytes));
        }
        Some(Self::Turned(listing::read(&bytes)?.into_iter().map(Container::from).collect()))
    }
}

fn is_ours(order: EndianSig) -> bool {
    order == NATIVE_ENDIAN_SIG
}

impl Type for Listing {
    const SIGNATURE: &'static Signature = <Vec<Container> as Type>::SIGNATURE;
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // An array is its length in bytes and then its bytes, whatever it is of. The first dictionary needs no padding.
            Self::Written(bytes) => serializer.serialize_bytes(bytes.get(LENGTH..).unwrap_or_default()),
            Self::Turned(containers) => containers.serialize(serializer),
        }
    }
}
