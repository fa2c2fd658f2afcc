//! The `network` system container: links, addresses, routes, names, and the network of user containers.
//!
//! - [`service`]: the event loop
//! - `init`: the channel to PID 1
//! - `link`, `netlink`, `sysctl`: the kernel's side
//! - `made`: links that the configuration makes; `rules`: which routing table is asked
//! - `host_link`: one link of the host; `dhcp`, `dhcp6`, `router_advertisement`: what other machines tell it; `arp`:
//!   whether an address is free; `listening`: their sockets; `leases`: what of them outlasts a reboot
//! - `containers`: bridge, cables, addresses and ports of user containers; `nftables`: the packet filter
//! - `dns`: the names of containers
//! - `resolver`, `files`: resolv.conf and hosts
//! - `time`: how wrong the clock is
//!
//! It holds nothing that cannot be found again in the kernel or in its files: it can be killed at any moment, and
//! addresses and connections stay while it is away.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod arp;
mod clock;
mod containers;
mod dhcp;
mod dhcp6;
mod dns;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host_link;
mod init;
mod leases;
mod link;
mod listening;
mod made;
mod netlink;
mod nftables;
mod random;
mod report;
mod resolver;
mod router_advertisement;
mod rules;
mod service;
mod sys;
mod sysctl;
mod time;

use std::pin::Pin;
use std::process::ExitCode;

use berth_control::channel::Channel;

use crate::service::{Paths, ServiceError};

/// The program `berth-network`: runs until PID 1 closes its channel.
pub fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), ServiceError> {
    let channel = Channel::inherited()?;
    let paths = Paths { run: "/run/berth".into(), state: "/var/lib/berth/network".into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceError::Kernel)?;
    let serving: Pin<Box<dyn Future<Output = _>>> = Box::pin(service::run(channel, paths));
    runtime.block_on(serving)
}
