//! A network with a DHCP server: dnsmasq.

use std::fs;

use super::{Machine, Namespace, Program, eventually};

/// Another machine on the cable `eth0` of the one under test.
pub struct Lan {
    pub namespace: Namespace,
    pub log: tempfile::NamedTempFile,
    pub leases: tempfile::NamedTempFile,
}

impl Lan {
    pub fn new(machine: &Machine) -> Self {
        let namespace = Namespace::new();
        machine.namespace.connect("eth0", &namespace, "lan0");
        Self::at(namespace)
    }

    /// On a switch that others are on too.
    pub fn behind(switch: &Namespace) -> Self {
        let namespace = Namespace::new();
        switch.connect("lan", &namespace, "lan0");
        switch.ip("link set lan master switch up");
        Self::at(namespace)
    }

    fn at(namespace: Namespace) -> Self {
        namespace.ip("address add 10.77.0.1/24 dev lan0");
        namespace.ip("link set lan0 up");
        let temporary = || tempfile::NamedTempFile::new().unwrap();
        Self { namespace, log: temporary(), leases: temporary() }
    }

    /// Starts the server with a range of addresses.
    pub fn serve(&self, range: &str, options: &[&str]) -> Program {
        let arguments = [
            "dnsmasq".to_owned(),
            "--keep-in-foreground".into(),
            "--conf-file=/dev/null".into(),
            "--port=0".into(),
            "--user=root".into(),
            "--pid-file=".into(),
            "--no-ping".into(),
            "--log-dhcp".into(),
            "--interface=lan0".into(),
            "--bind-interfaces".into(),
            format!("--log-facility={}", self.log.path().display()),
            format!("--dhcp-leasefile={}", self.leases.path().display()),
            format!("--dhcp-range={range}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(options.iter().copied()).collect();
        let program = self.namespace.start(&arguments);
        eventually("dnsmasq is up", || self.log_text().contains("DHCP, ").then_some(()));
        program
    }

    /// What it has said.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }
}
