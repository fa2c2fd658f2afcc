//! Whether an IPv4 address is free on a link (RFC 5227): [`detector`] decides, [`port`] sends and hears.

pub mod detector;
pub mod packet;
pub mod port;
