//! The packet filter: [`wire`] is the encoding, [`expression`] what rules are made of,
//! [`element`] what sets hold, [`ruleset`] our table, [`quiet`] the one for all bridges, [`conntrack`] what becomes of
//! connections.

pub mod apart;
pub mod conntrack;
pub mod element;
pub mod expression;
pub mod guard;
pub mod quiet;
pub mod ruleset;
pub mod wire;
