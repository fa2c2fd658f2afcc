//! DHCPv6 (RFC 8415): [`message`] reads and writes, [`client`] decides, [`lease`] knows what is left, [`port`] sends and hears.

pub mod client;
pub mod lease;
pub mod message;
pub mod port;
