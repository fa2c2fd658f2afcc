//! A machine with an uplink to a host outside, and containers that serve and ask.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use berth_control::message::{Attachment, Port};

use super::{Machine, Namespace, PATIENCE, Program, Running, eventually, on, wanted};

/// Until a question over UDP is asked again.
const UDP_PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of the machine.
pub const HOST: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The addresses of the host outside.
pub const OUTSIDE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// The machine with an uplink to a host outside.
pub struct Site {
    pub machine: Machine,
    pub outside: Namespace,
}

impl Site {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more in its configuration.
    pub fn with(more: &str) -> Self {
        let machine = Machine::new(&Self::text(more));
        let outside = Namespace::new();
        machine.namespace.connect("eth0", &outside, "up0");
        outside.ip("link set up0 up");
        outside.ip("address add 192.0.2.1/24 dev up0");
        outside.ip("address add 2001:db8::1/64 dev up0 nodad");
        Self { machine, outside }
    }

    fn text(more: &str) -> String {
        format!(
            "[network.links.eth0]\naddresses = [\"192.0.2.2/24\", \"2001:db8::2/64\"]\n\
             gateways = [\"192.0.2.1\", \"2001:db8::1\"]\n{more}"
        )
    }

    /// A configuration with the same uplink.
    pub fn configuration(&self, more: &str) -> String {
        Self::text(more)
    }

    pub fn start(&self) -> Running {
        let mut service = self.machine.start();
        service.wait_ready();
        service.wait_address("eth0", HOST[0]);
        service.wait_address("eth0", HOST[1]);
        let v6 = || self.machine.namespace.try_run(&format!("ping -6 -c1 -W1 {}", OUTSIDE[1])).status.success();
        // The uplink's IPv6 address waits for duplicate detection.
        if std::path::Path::new("/bin/ping").exists() {
            eventually("the uplink", || v6().then_some(()));
        } else {
            eventually("the uplink", || {
                (!self.machine.namespace.ip("-6 address show dev eth0 scope global").contains("tentative"))
                    .then_some(())
            });
        }
        service
    }
}

/// A container: a namespace in which nothing is set up.
pub fn container() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link set lo down");
    namespace
}

/// A container that is attached to a network.
pub fn joined(service: &mut Running, name: &str, network: &str) -> Namespace {
    let namespace = container();
    service.attach_as(on(wanted(name, &[]), &[(network, "")]), &namespace).unwrap();
    namespace
}

/// With the rules of a container's table in the configuration.
pub fn ruled(mut wanted: Attachment, rules: &str) -> Attachment {
    let container: berth_config::Container = toml::from_str(&format!("image = 'x'\n{rules}")).unwrap();
    (wanted.access, wanted.bandwidth) = (container.access(), container.bandwidth);
    wanted
}

/// The address that a link has given itself, for who asks from the link `from`.
pub fn link_local(namespace: &Namespace, link: &str, from: &str) -> String {
    let shown = namespace.ip(&format!("-o -6 address show dev {link} scope link"));
    let address = shown.split_whitespace().find(|word| word.starts_with("fe80:")).unwrap();
    format!("{}%{from}", address.split('/').next().unwrap())
}

pub fn port(host_address: &str, host_port: u16, container_port: u16, protocol: &str) -> Port {
    range(host_address, (host_port, container_port), 0, protocol)
}

/// That port and as many behind it.
pub fn range(host_address: &str, (host_port, container_port): (u16, u16), further_ports: u16, protocol: &str) -> Port {
    Port { host_address: host_address.into(), host_port, container_port, further_ports, protocol: protocol.into() }
}

/// A server that answers with its name and the address it sees.
pub fn serve(namespace: &Namespace, protocol: &str, port: u16, name: &str) -> Program {
    let listen = format!("{protocol}6-LISTEN:{port},fork,reuseaddr,ipv6only=0");
    let answer = format!("SYSTEM:read line; echo {name} sees $SOCAT_PEERADDR");
    // Its own half second after the question's end is short for a shell on a busy machine: the answer would be lost.
    let patience = format!("-t{}", PATIENCE.as_secs());
    let program = namespace.start(&["socat", &patience, &listen, &answer]);
    let table = if protocol == "TCP" { "/proc/net/tcp6" } else { "/proc/net/udp6" };
    let wanted = format!(":{port:04X} ");
    eventually("the server listens", || namespace.run(&format!("cat {table}")).contains(&wanted).then_some(()));
    program
}

/// What a server answers; empty if nothing comes.
pub fn ask(from: &Namespace, protocol: &str, address: &str, port: u16) -> String {
    match protocol {
        // In its namespace, which knows the link of an address such as fe80::1%eth0.
        "UDP" => from.within(|| ask_over_udp((address, port).to_socket_addrs().unwrap().next().unwrap(), PATIENCE)),
        _ => ask_within(from, protocol, address, port, 20),
    }
}

/// Asks until an answer comes: what is asked while the server makes room for the next question is lost, or refused.
fn ask_over_udp(server: SocketAddr, patience: Duration) -> String {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(UDP_PATIENCE)).unwrap();
    let (end, mut answer) = (Instant::now() + patience, [0; 512]);
    while Instant::now() < end {
        match socket.send(b"hello\n").and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => return String::from_utf8_lossy(&answer[..length]).trim().to_owned(),
            // Nobody says when somebody listens again.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => {}
        }
    }
    String::new()
}

/// The same as [`is_shut`] over UDP, which knows no end: a pause.
pub fn is_silent(from: &Namespace, address: &str, port: u16) -> bool {
    from.within(|| ask_over_udp(SocketAddr::new(address.parse().unwrap(), port), UDP_PATIENCE)).is_empty()
}

/// Whether a server's answer does not come although it listens: asked where the way to it was used before.
pub fn is_shut(from: &Namespace, address: &str, port: u16) -> bool {
    ask_within(from, "TCP", address, port, 1).is_empty()
}

/// A deadline, not a pause: an answer ends it.
fn ask_within(from: &Namespace, protocol: &str, address: &str, port: u16, seconds: u32) -> String {
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let line = format!(
        "sh -c 'echo hello | socat -t{seconds} -T{seconds} - {protocol}:{address}:{port},connect-timeout={seconds}'"
    );
    String::from_utf8_lossy(&from.try_run(&line).stdout).trim().to_owned()
}
