//! The packet filter: [`wire`] is the encoding, [`expression`] what rules are made of,
//! [`element`] what sets hold, [`ruleset`] our table.

pub mod element;
pub mod expression;
pub mod guard;
pub mod ruleset;
pub mod wire;
