//! Links whose routes stand apart from the machine's, which are the ports of VRFs: how connections to published ports find their way
//! from them to containers, whose bridges are in the main table, and back.
//!
//! The kernel routes what is redirected by the VRF's table, and the answers by the main one: both would be wrong. So they have marks, for
//! which [`crate::rules`] has rules.

use super::element::Bytes;
use super::expression::{Conntrack, Expressions, FIRST, Meta, REPLY, STATUS_DNAT, Verdict};
use super::ruleset::{self, add};
use super::wire::Batch;

/// The mark of packets that are routed by the main table although they come from a VRF.
pub const TO_MAIN: u32 = 0xbd00_0000;
/// That of connections from a VRF, with the number of its table, and the bits by which it is known.
const FROM_VRF: u32 = 0xbe00_0000;
const KIND: u32 = 0xff00_0000;
/// The chain, behind that of published ports.
pub const CHAIN: &str = "apart";

/// A port of a VRF, and the number of the VRF's table.
pub type Apart = (String, u32);

/// By which the answers to what came from a VRF are known.
pub const fn mark(table: u32) -> u32 {
    FROM_VRF | table & !KIND
}

/// Sends what comes to the address of such a link to who has published a port there.
pub(super) fn publish(batch: &mut Batch, links: &[Apart]) {
    for (name, table) in links {
        let here = Expressions::new().meta(Meta::InputName, FIRST).equal(FIRST, &Bytes::new().link(name).end());
        let marked = here.for_its_link().load(FIRST, &mark(*table).to_ne_bytes()).mark_connection(FIRST);
        add(batch, "prerouting", marked.verdict(Verdict::Jump(ruleset::PUBLISH)));
    }
}

/// Marks what has been sent to a container, and what it answers.
pub(super) fn route(batch: &mut Batch, links: &[Apart]) {
    for (name, _) in links {
        let here = Expressions::new().meta(Meta::InputName, FIRST).equal(FIRST, &Bytes::new().link(name).end());
        let redirected = here.conntrack(Conntrack::Status, STATUS_DNAT).load(FIRST, &TO_MAIN.to_ne_bytes());
        add(batch, CHAIN, redirected.mark_packet(FIRST));
    }
    if !links.is_empty() {
        let answer = Expressions::new().of_connection(Conntrack::Direction, FIRST).equal(FIRST, &[REPLY]);
        let answer =
            answer.of_connection(Conntrack::Mark, FIRST).prefix(FIRST, &KIND.to_ne_bytes(), &FROM_VRF.to_ne_bytes());
        let from_container = answer.link_in(Meta::InputName, ruleset::NETWORKS, false);
        add(batch, CHAIN, from_container.of_connection(Conntrack::Mark, FIRST).mark_packet(FIRST));
    }
}
