//! A machine in QEMU, from its description to its end.
//!
//! Dropping a [`Machine`] kills its QEMU, always; the console stays in the case's folder for the report.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use serde_json::json;

pub use self::builder::{Builder, Bus, Cable, Firmware, Model, Nic};
pub use self::console::{Console, Mark};
pub use self::guest::{Guest, Output};
pub use self::qmp::Qmp;
use crate::wait;

mod builder;
mod console;
mod guest;
mod hardware;
mod qmp;

/// A line that PID 1 writes when everything that is declared has been tried, and nothing is wrong.
pub const READY: &str = "berth: ready";
/// The same, with something wrong.
pub const DEGRADED: &str = "berth: degraded";

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    /// What it writes on its serial port, and what is typed there.
    pub console: Console,
    /// The control of the hypervisor.
    pub qmp: Qmp,
    /// The guest agent's client.
    pub guest: Guest,
    disk: PathBuf,
    started: Instant,
    /// For each NIC the guest ports that are forwarded.
    forwards: Vec<Vec<u16>>,
}

impl Machine {
    /// Waits until everything declared was tried, whatever came of it; what PID 1 says is the result.
    ///
    /// # Errors
    /// If the machine ends or the time is up.
    pub fn wait_until_settled(&self) -> Result<String> {
        self.wait_until_settled_after(Mark::default())
    }

    /// As [`Self::wait_until_settled`], for what the console says after `mark`: the next boot.
    ///
    /// # Errors
    /// If the machine ends or the time is up.
    pub fn wait_until_settled_after(&self, mark: Mark) -> Result<String> {
        self.console.wait_for_line(mark, wait::BOOT, |line| line.contains(READY) || line.contains(DEGRADED))
    }

    /// Reboots through the guest agent, and waits until everything was tried again and the agent answers; what PID 1 says is
    /// the result. What it says before its end is another boot's.
    ///
    /// # Errors
    /// If the machine does not reset, ends, or the time is up.
    pub fn reboot(&mut self) -> Result<String> {
        let mark = self.console.mark();
        self.guest.shutdown("reboot")?;
        self.console.wait_for(mark, wait::BOOT, "reboot: Restarting system")?;
        let line = self.wait_until_settled_after(self.console.mark())?;
        self.guest.wait()?;
        Ok(line)
    }

    /// Waits until everything runs.
    ///
    /// # Errors
    /// If something does not.
    pub fn wait_until_ready(&self) -> Result<()> {
        let line = self.wait_until_settled()?;
        ensure!(line.contains(READY), "the machine is up, but: {line}");
        Ok(())
    }

    /// Plugs a disk into the free slot of a running machine, see [`Builder::with_free_slot`].
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn attach_disk(&mut self, path: &std::path::Path) -> Result<()> {
        let file = json!({ "driver": "file", "filename": path });
        self.qmp.run("blockdev-add", json!({ "driver": "raw", "node-name": "late", "file": file }))?;
        let device = json!({ "driver": "virtio-blk-pci", "id": "late-disk", "drive": "late", "bus": "free" });
        self.qmp.run("device_add", device).map(drop)
    }

    /// Plugs a network card with this address into the free slot, see [`Builder::with_free_slot`]; its cable leads to a
    /// router of its own.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn attach_card(&mut self, mac: &str) -> Result<()> {
        self.qmp.run("netdev_add", json!({ "type": "user", "id": "late-cable" }))?;
        let device = json!({
            "driver": "virtio-net-pci", "id": "late-card", "netdev": "late-cable", "mac": mac, "bus": "free", "romfile": "",
        });
        self.qmp.run("device_add", device).map(drop)
    }

    /// Pulls that card out, as soon as the machine lets go of it.
    ///
    /// # Errors
    /// If QEMU refuses, or the machine keeps it.
    pub fn detach_card(&mut self) -> Result<()> {
        self.qmp.run("device_del", json!({ "id": "late-card" }))?;
        loop {
            let gone = self.qmp.wait_for_event("DEVICE_DELETED", wait::ANSWER)?;
            if gone["data"]["device"] == "late-card" {
                break;
            }
        }
        self.qmp.run("netdev_del", json!({ "id": "late-cable" })).map(drop)
    }

    /// How long it has been switched on.
    #[must_use]
    pub fn running_for(&self) -> Duration {
        self.started.elapsed()
    }

    /// The host's end of the forwarded guest port.
    ///
    /// # Errors
    /// If it is not forwarded.
    pub fn forwarded(&mut self, guest_port: u16) -> Result<SocketAddr> {
        ensure!(self.forwards.iter().flatten().any(|port| *port == guest_port), "port {guest_port} is not forwarded");
        let table = self.qmp.human("info usernet")?;
        let port = forwarded_port(&table, guest_port);
        let port = port.with_context(|| format!("port {guest_port} is not in QEMU's table:\n{table}"))?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Waits for QEMU's end, which is the machine's power-off, up to `limit`.
    ///
    /// # Errors
    /// If it is still on, or QEMU failed.
    pub fn wait_until_off(&mut self, limit: Duration) -> Result<ExitStatus> {
        if !self.console.wait_for_end(limit) {
            bail!("the machine is still on after {} s", limit.as_secs());
        }
        let status = self.process.wait().context("wait for QEMU")?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(status)
    }

    /// The machine's disk on the host; not to be touched while it runs.
    #[must_use]
    pub fn disk(&self) -> &std::path::Path {
        &self.disk
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what they are for.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.console.wait_for_end(wait::ANSWER);
    }
}

/// The host's port in a line of `info usernet`, such as
/// `  TCP[HOST_FORWARD]  12       127.0.0.1 36049       10.0.2.15  8080     0     0`.
fn forwarded_port(table: &str, guest_port: u16) -> Option<u16> {
    let guest_port = guest_port.to_string();
    table.lines().filter(|line| line.contains("HOST_FORWARD")).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(5) == Some(&guest_port.as_str())).then(|| columns.get(3)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_qemu_chose_is_read_from_its_table() {
        let table = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                     TCP[HOST_FORWARD]  12       127.0.0.1 36049       10.0.2.15  8080     0     0\n";
        assert_eq!(forwarded_port(table, 8080), Some(36049));
        assert_eq!(forwarded_port(table, 80), None);
    }
}
