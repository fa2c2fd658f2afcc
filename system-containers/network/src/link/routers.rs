//! What routers say of DHCPv6, as the kernel has it from their advertisements.

use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, Inet6IfaceFlags, LinkAttribute, LinkMessage, LinkProtoInfoInet6,
};
use rtnetlink::packet_core::Nla;

/// What routers say of DHCPv6 (the flags M and O of their advertisements), the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Routers {
    /// Nothing.
    #[default]
    Nothing,
    /// There is more to know from it.
    Other,
    /// There are addresses to be had from it.
    Managed,
}

impl Routers {
    pub(super) fn from_flags(flags: Inet6IfaceFlags) -> Self {
        match flags {
            flags if flags.contains(Inet6IfaceFlags::RaManaged) => Self::Managed,
            flags if flags.contains(Inet6IfaceFlags::Otherconf) => Self::Other,
            _ => Self::Nothing,
        }
    }
}

/// IFLA_INET6_FLAGS
const INET6_FLAGS: u16 = 1;

/// What the kernel notifies of when a router has changed its mind.
pub(super) fn notified_flags(message: &LinkMessage) -> Option<Inet6IfaceFlags> {
    let flags = |info: &LinkProtoInfoInet6| match info {
        LinkProtoInfoInet6::Other(attribute) if attribute.kind() == INET6_FLAGS && attribute.value_len() == 4 => {
            let mut bytes = [0; 4];
            attribute.emit_value(&mut bytes);
            Some(Inet6IfaceFlags::from_bits_retain(u32::from_ne_bytes(bytes)))
        }
        _ => None,
    };
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::ProtoInfoInet6(infos) => infos.iter().find_map(flags),
        _ => None,
    })
}

pub(super) fn described_flags(specification: &[AfSpecUnspec]) -> Option<Inet6IfaceFlags> {
    specification.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(facts) => facts.iter().find_map(|fact| match fact {
            AfSpecInet6::Flags(flags) => Some(*flags),
            _ => None,
        }),
        _ => None,
    })
}
