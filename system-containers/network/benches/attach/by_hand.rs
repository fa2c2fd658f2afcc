//! The same steps with `ip` and `nft`, four commands a container: what the kernel itself takes longer for the last one is seen
//! here.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Namespace, eventually};

const RULES: &str = "table inet hand {
    map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
    map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
    chain prerouting { type nat hook prerouting priority dstnat;
        dnat ip to meta l4proto . th dport map @published4; dnat ip6 to meta l4proto . th dport map @published6; }
}
table bridge quiet {
    chain prerouting { type filter hook prerouting priority -300; ip6 daddr ff02::16 iifname \"port*\" drop; }
}";

/// A machine with a bridge.
pub struct Machine {
    host: Namespace,
}

impl Machine {
    pub fn new() -> Self {
        let host = Namespace::new();
        host.ip("link add hand0 type bridge mcast_snooping 0");
        host.ip("address add 10.88.0.1/16 dev hand0");
        host.ip("address add fd88::1/64 dev hand0 nodad");
        host.ip("link set hand0 up");
        host.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        feed(Command::new("ip").args(["netns", "exec", &host.name, "nft", "-f", "-"]), RULES);
        Self { host }
    }

    /// Attaches a container, and says how long it took.
    pub fn attach(&self, number: usize, container: &Namespace) -> Duration {
        let (a, b) = ((number + 2) >> 8, (number + 2) & 0xff);
        let (port, inside, host) = (format!("port{number}"), &container.name, &self.host.name);
        let cable = format!(
            "link add {port} type veth peer name eth0 address 02:00:00:00:{a:02x}:{b:02x} netns {inside}\n\
             link set {port} master hand0 alias c{number}\n"
        );
        let addresses = format!(
            "link set lo up\nlink set eth0 up\naddress add 10.88.{a}.{b}/16 dev eth0\n\
             address add fd88::{a:x}:{b:x}/64 dev eth0 nodad\nroute add default via 10.88.0.1\n\
             route add default via fd88::1\n"
        );
        let elements = format!(
            "add element inet hand published4 {{ tcp . {0} : 10.88.{a}.{b} . 80 }}\n\
             add element inet hand published6 {{ tcp . {0} : fd88::{a:x}:{b:x} . 80 }}\n",
            10_000 + number
        );
        let begin = Instant::now();
        feed(Command::new("ip").args(["-n", host, "-batch", "-"]), &cable);
        self.host.within(|| set(&format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1"));
        feed(Command::new("ip").args(["-n", host, "link", "set", &port, "up"]), "");
        container.within(|| {
            for key in ["accept_ra", "accept_dad"] {
                set(&format!("/proc/sys/net/ipv6/conf/eth0/{key}"), "0");
            }
        });
        feed(Command::new("ip").args(["-n", inside, "-batch", "-"]), &addresses);
        feed(Command::new("ip").args(["netns", "exec", host, "nft", "-f", "-"]), &elements);
        begin.elapsed()
    }

    /// Waits until the cables have gone with their containers.
    pub fn wait_for_the_end(self) {
        wait_for_the_end(&self.host, "port");
    }
}

/// Waits until no cable is there any more: namespaces are taken apart in the background, which slows down what comes next.
pub fn wait_for_the_end(host: &Namespace, cable: &str) {
    eventually("the cables are gone", || (!host.ip("link show type veth").contains(cable)).then_some(()));
}

fn set(path: &str, value: &str) {
    fs::write(path, value).expect("the link is there");
}

pub fn feed(command: &mut Command, text: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let ended = child.wait().expect("it can be waited for");
    assert!(ended.success(), "{command:?} refuses {text}");
}
