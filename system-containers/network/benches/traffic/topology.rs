//! Two containers on a machine with a host outside: once as Berth makes it, once by hand.

use crate::support::site::{Site, container, port};
use crate::support::{Namespace, Running};
use crate::throughput::PORT as THROUGHPUT;
use crate::{requests, throughput};

/// What the published ports of the machine are above those of the container.
const PUBLISHED: u16 = 1000;

/// Which way the packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    BetweenContainers,
    Outside,
    PublishedPort,
}

pub const PATHS: [Path; 3] = [Path::BetweenContainers, Path::Outside, Path::PublishedPort];

impl Path {
    pub fn name(self) -> &'static str {
        match self {
            Self::BetweenContainers => "container to container",
            Self::Outside => "container to outside",
            Self::PublishedPort => "published port",
        }
    }
}

/// Whatever has to stay while packets pass.
enum Keeper {
    Berth(Box<(Site, Running)>),
    Hand([Namespace; 2]),
}

/// The machine, and who sends and answers.
pub struct Topology {
    keeper: Keeper,
    containers: [Namespace; 2],
    /// The address of the first container.
    address: String,
}

/// Who asks whom.
pub struct Ends<'a> {
    pub client: &'a Namespace,
    pub server: &'a Namespace,
    pub address: &'a str,
    /// Added to the server's port.
    pub offset: u16,
}

const MACHINE: &str = "192.0.2.2";
const OUTSIDE: &str = "192.0.2.1";

impl Topology {
    /// By the service under test.
    pub fn ours() -> Self {
        let site = Site::new();
        let mut service = site.start();
        let containers = [container(), container()];
        let ports = [THROUGHPUT, requests::PORT].map(|number| port("", number + PUBLISHED, number, "tcp"));
        let addresses = service.attach("first", &containers[0], &ports).expect("the first container is attached");
        service.attach("second", &containers[1], &[]).expect("the second container is attached");
        let address = addresses.first().expect("it has an address").clone();
        Self { keeper: Keeper::Berth(Box::new((site, service))), containers, address }
    }

    /// By commands, with the same rules for who may pass.
    pub fn by_hand() -> Self {
        let [machine, outside, first, second] = [(); 4].map(|()| Namespace::new());
        machine.connect("eth0", &outside, "up0");
        for (namespace, link, address) in [(&machine, "eth0", MACHINE), (&outside, "up0", OUTSIDE)] {
            namespace.ip(&format!("address add {address}/24 dev {link}"));
            namespace.ip(&format!("link set {link} up"));
        }
        machine.ip("link add bridge0 type bridge mcast_snooping 0");
        machine.ip("address add 10.88.0.1/16 dev bridge0");
        machine.ip("link set bridge0 up");
        for (number, inside) in [(2, &first), (3, &second)] {
            machine.ip(&format!("link add port{number} type veth peer name eth0 netns {}", inside.name));
            machine.ip(&format!("link set port{number} master bridge0 up"));
            inside.ip(&format!("address add 10.88.0.{number}/16 dev eth0"));
            inside.ip("link set eth0 up");
            inside.ip("route add default via 10.88.0.1");
        }
        machine.run("sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=0");
        machine.run(&format!("nft '{}'", Self::rules()));
        Self { keeper: Keeper::Hand([machine, outside]), containers: [first, second], address: "10.88.0.2".to_owned() }
    }

    fn rules() -> String {
        let publish = [throughput::PORT, requests::PORT]
            .map(|port| format!("fib daddr type local tcp dport {} dnat ip to 10.88.0.2:{port};", port + PUBLISHED))
            .join(" ");
        format!(
            "table inet hand {{
                chain prerouting {{ type nat hook prerouting priority dstnat; {publish} }}
                chain output {{ type nat hook output priority -100; {publish} }}
                chain input {{ type filter hook input priority filter; policy drop;
                    ct state established,related accept; iifname lo accept; meta l4proto icmp accept; }}
                chain forward {{ type filter hook forward priority filter; policy drop;
                    ct state established,related accept; iifname bridge0 oifname != bridge0 accept;
                    oifname bridge0 ct status dnat accept; }}
                chain postrouting {{ type nat hook postrouting priority srcnat;
                    iifname bridge0 oifname != bridge0 masquerade;
                    iifname bridge0 oifname bridge0 ct status dnat masquerade; }}
            }}"
        )
    }

    fn outside(&self) -> &Namespace {
        match &self.keeper {
            Keeper::Berth(kept) => &kept.0.outside,
            Keeper::Hand([_, outside]) => outside,
        }
    }

    pub fn ends(&self, path: Path) -> Ends<'_> {
        let [first, second] = &self.containers;
        match path {
            Path::BetweenContainers => Ends { client: second, server: first, address: &self.address, offset: 0 },
            Path::Outside => Ends { client: first, server: self.outside(), address: OUTSIDE, offset: 0 },
            Path::PublishedPort => Ends { client: self.outside(), server: first, address: MACHINE, offset: PUBLISHED },
        }
    }
}
