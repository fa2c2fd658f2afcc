//! The table `bridge berth-quiet`: what containers tell all others that nobody there listens to.
//!
//! With every address the kernel of a container announces a multicast group (MLD, RFC 3810) to all routers that
//! understand it. Our bridges do not look at the announcements, so they would hand each to every container: with five
//! hundred of them a new one would cost the processor some 20 ms. The bridge drops them as they come in.
//!
//! Must not drop anything else: neighbour discovery and the multicast of programs go to everybody as before.

use std::io;

use super::expression::{Expressions, FIRST, Header, Meta, Verdict};
use super::wire::{Batch, Connection, Family, Kind};
use crate::link::OWN_PREFIX;

/// Beside `bridge berth`, which is there only while there are rules between containers.
const TABLE: &str = "berth-quiet";
const CHAIN: &str = "quiet";
/// NF_BR_PRE_ROUTING: before a frame is handed on to any port.
const PREROUTING: u32 = 0;
/// NF_BR_PRI_NAT_DST_BRIDGED, the earliest that nft has a name for.
const PRIORITY: i32 = -300;
/// ETH_P_IPV6
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The destination address in an IPv6 header: its offset and length.
const DESTINATION: (u32, u32) = (24, 16);
/// All routers that understand MLDv2: ff02::16.
const MLD_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];

/// Puts the table in place; the one that is there, if any, goes at the same moment.
pub fn set_up() -> io::Result<()> {
    let mut batch = Batch::new();
    batch.of(Family::Bridge);
    // A table that is not there cannot be deleted, so it is made first.
    for kind in [Kind::NewTable, Kind::DeleteTable, Kind::NewTable] {
        batch.message(kind, |table| {
            table.text(1, TABLE);
        });
    }
    batch.message(Kind::NewChain, |chain| {
        chain.text(1, TABLE).text(3, CHAIN).text(7, "filter").nested(4, |place| {
            place.number(1, PREROUTING).number(2, PRIORITY.cast_unsigned());
        });
    });
    let reports = Expressions::new().meta(Meta::EtherType, FIRST).equal(FIRST, &ETHERTYPE_IPV6.to_be_bytes());
    let (offset, length) = DESTINATION;
    let reports = reports.payload(Header::Network, offset, length, FIRST).equal(FIRST, &MLD_ROUTERS);
    // The ends of cables have names that begin like the bridges'; those of other bridges are none of our business.
    let ours = reports.meta(Meta::InputName, FIRST).equal(FIRST, OWN_PREFIX.as_bytes());
    let list = ours.verdict(Verdict::Drop).into_attributes();
    batch.message(Kind::NewRule, |rule| {
        rule.text(1, TABLE).text(2, CHAIN).nested(4, |inner| *inner = list);
    });
    Connection::open()?.commit(batch)
}
