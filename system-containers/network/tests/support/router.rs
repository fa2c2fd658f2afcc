//! A router on the cable `eth0` of the machine under test, or behind a switch: radvd, and a DHCPv6 server: kea.

use std::fs;

use super::{Machine, Namespace, Program, eventually, kea};

/// fd77::1, in the form of option 56 (RFC 5908), which kea does not know.
const NTP_SERVER: &str = "00010010fd770000000000000000000000000001";

/// Another machine, fd77::1 where nothing else is said.
pub struct Router {
    pub namespace: Namespace,
    pub files: tempfile::TempDir,
}

impl Router {
    pub fn new(machine: &Machine) -> Self {
        let namespace = Namespace::new();
        machine.namespace.connect("eth0", &namespace, "lan0");
        machine.namespace.ip("link set eth0 up");
        Self::at(namespace, "fd77::1/64")
    }

    /// With this address, on a switch that others are on too, where its port has this name.
    pub fn behind(switch: &Namespace, port: &str, address: &str) -> Self {
        let namespace = Namespace::new();
        switch.connect(port, &namespace, "lan0");
        switch.ip(&format!("link set {port} master switch up"));
        Self::at(namespace, address)
    }

    fn at(namespace: Namespace, address: &str) -> Self {
        namespace.ip("link set lan0 up");
        namespace.ip(&format!("address add {address} dev lan0 nodad"));
        namespace.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        // Both programs use its link-local address, which comes with carrier and is looked for on the link first.
        eventually("a link-local address", || {
            let addresses = namespace.ip("-6 address show dev lan0 scope link");
            (addresses.contains("fe80") && !addresses.contains("tentative")).then_some(())
        });
        Self { namespace, files: tempfile::tempdir_in("/dev/shm").unwrap() }
    }

    /// Says this of the link, in radvd's words.
    pub fn advertise(&self, settings: &str) -> Program {
        let (configuration, pid) = (self.files.path().join("radvd.conf"), self.files.path().join("radvd.pid"));
        fs::write(&configuration, format!("interface lan0 {{ AdvSendAdvert on; {settings} }};")).unwrap();
        let (configuration, pid) = (configuration.display().to_string(), pid.display().to_string());
        self.namespace.start(&["radvd", "-n", "-C", &configuration, "-p", &pid, "-m", "none"])
    }

    /// Answers with addresses of fd77::50 and on, a resolver and a time server.
    pub fn serve(&self, lifetimes: &str) -> Program {
        let folder = self.files.path();
        let settings = format!(
            r#""data-directory": "{}",
            {lifetimes}
            "option-data": [
                {{ "name": "dns-servers", "data": "fd77::53" }},
                {{ "name": "domain-search", "data": "six.example" }},
                {{ "code": 56, "csv-format": false, "data": "{NTP_SERVER}" }}
            ],
            "subnet6": [ {{ "id": 1, "subnet": "fd77::/64", "interface": "lan0", "rapid-commit": false,
                "pools": [ {{ "pool": "fd77::50-fd77::5f" }} ] }} ]"#,
            folder.display()
        );
        kea::serve(&self.namespace, folder, 6, &settings)
    }

    /// What the DHCPv6 server has said.
    pub fn log(&self) -> String {
        kea::log(self.files.path())
    }
}
