//! DHCPv6 (RFC 8415): [`message`] reads and writes, [`client`] decides, [`port`] sends and hears.

pub mod client;
pub mod message;
pub mod port;
