//! The same cable with as few questions to the kernel as there can be: what each container still takes longer than the one before is
//! the kernel's own, since a bridge walks over all of its ports for a new one (br_add_if, br_port_state_selection).

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::support::Namespace;

/// Of every container's end: chosen, so that the kernel need not be asked.
const INDEX: u32 = 100;
/// As ours has it.
const QUIET: &str = "table bridge quiet {
    chain prerouting { type filter hook prerouting priority -300; ip6 daddr ff02::16 iifname \"few0-*\" drop; }
}";

/// A machine with a bridge, and a socket to its kernel.
pub struct Machine {
    pub host: Namespace,
    bridge: u32,
    socket: Socket,
}

impl Machine {
    pub fn new() -> Self {
        let host = Namespace::new();
        host.ip("link add few0 type bridge mcast_snooping 0 vlan_default_pvid 0");
        host.ip("address add 10.89.0.1/16 dev few0");
        host.ip("address add fd89::1/64 dev few0 nodad");
        host.ip("link set few0 up");
        super::by_hand::feed(Command::new("ip").args(["netns", "exec", &host.name, "nft", "-f", "-"]), QUIET);
        host.within(|| set_by_default(&[("disable_ipv6", "1")]));
        let shown = host.ip("-o link show few0");
        let bridge = shown.split(':').next().and_then(|number| number.trim().parse().ok()).expect("it has a number");
        let socket = host.within(socket);
        Self { host, bridge, socket }
    }

    /// Attaches a container, and says how long it took.
    pub fn attach(&self, number: usize, container: &Namespace) -> Duration {
        container.within(|| set_by_default(&[("accept_ra", "0"), ("accept_dad", "0")]));
        let (namespace, inside) = (File::open(container.path()).expect("it is there"), container.within(socket));
        let [_, _, a, b] = u32::try_from(number + 2).expect("few").to_be_bytes();
        let name = format!("few0-{number}");
        let mut address6 = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(INDEX)
            .address([0xfd89, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b])].into(), 64)
            .build();
        address6.header.flags = AddressHeaderFlags::Nodad;
        let address4 = AddressMessageBuilder::<Ipv4Addr>::new().index(INDEX).address([10, 89, a, b].into(), 16).build();
        let routes = [
            RouteMessageBuilder::<Ipv4Addr>::new().gateway([10, 89, 0, 1].into()).build(),
            RouteMessageBuilder::<Ipv6Addr>::new().gateway([0xfd89, 0, 0, 0, 0, 0, 0, 1].into()).build(),
        ];
        let begin = Instant::now();
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .index(INDEX)
            .name("eth0")
            .address(vec![2, 0xbf, 10, 89, a, b])
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1))
            .setns_by_fd(namespace.as_raw_fd());
        let cable = LinkVeth::new(&name, "eth0")
            .index(1000 + u32::from(a) * 256 + u32::from(b))
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        make(&self.socket, RouteNetlinkMessage::NewLink(cable.controller(self.bridge).build()));
        change(&self.socket, LinkUnspec::new_with_name(&name).up().build());
        for index in [1, INDEX] {
            change(&inside, LinkUnspec::new_with_index(index).up().build());
        }
        for message in [address4, address6] {
            make(&inside, RouteNetlinkMessage::NewAddress(message));
        }
        for message in routes {
            make(&inside, RouteNetlinkMessage::NewRoute(message));
        }
        begin.elapsed()
    }

    /// Waits until the cables have gone with their containers.
    pub fn wait_for_the_end(self) {
        super::by_hand::wait_for_the_end(&self.host, "few0-");
    }
}

/// What new links of this thread's namespace have, by a /proc of its own: in that of all namespaces it would be searched for longer
/// each time.
fn set_by_default(switches: &[(&str, &str)]) {
    let new = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has it");
    fsconfig_create(new.as_fd()).expect("root may");
    let own = fsmount(new.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("root may");
    for (key, value) in switches {
        let path = format!("/proc/self/fd/{}/sys/net/ipv6/conf/default/{key}", own.as_raw_fd());
        fs::write(path, value).expect("IPv6 is there");
    }
}

/// Of the namespace that this thread is in.
fn socket() -> Socket {
    let mut socket = Socket::new(NETLINK_ROUTE).expect("the kernel has them");
    socket.bind_auto().expect("a number is left");
    socket.connect(&SocketAddr::new(0, 0)).expect("the kernel is there");
    socket
}

fn make(socket: &Socket, message: RouteNetlinkMessage) {
    ask(socket, message, NLM_F_CREATE | NLM_F_EXCL);
}

fn change(socket: &Socket, message: LinkMessage) {
    ask(socket, RouteNetlinkMessage::SetLink(message), 0);
}

fn ask(socket: &Socket, message: RouteNetlinkMessage, flags: u16) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).expect("the kernel takes it");
    let (answer, _) = socket.recv_from_full().expect("it answers");
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).expect("as it should");
    if let NetlinkPayload::Error(error) = answer.payload {
        assert!(error.code.is_none(), "{:?}", error.to_io());
    }
}
