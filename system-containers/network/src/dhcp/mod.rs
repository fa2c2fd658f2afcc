//! DHCPv4: [`message`] reads and writes, with [`routes`], [`client`] decides, [`lease`] checks, [`socket`] and [`port`] send and hear.

pub mod client;
pub mod lease;
pub mod message;
pub mod port;
pub mod routes;
pub mod socket;
