//! The packet filter: [`wire`] is the encoding, [`expression`] what rules are made of, [`ruleset`] our table.

pub mod expression;
pub mod ruleset;
pub mod wire;
