//! What PID 1 is told that links lack, for `berth why link`.

use berth_control::message::{Link, Request};

use crate::support::router::Router;
use crate::support::{Machine, Namespace, Running, possible};

#[test]
fn an_entry_that_fits_no_card_says_so_and_names_the_cards_and_a_card_without_an_entry_does() {
    if !possible(&["ip"]) {
        return;
    }
    let machine = Machine::new(
        "[network.links.lan]\nmatch = { mac = '02:00:00:00:99:*' }\n[network.links.eth7]\ndhcp = false\n\
         [network.links.tail]\nvlan = { link = 'eth7', id = 7 }\n",
    );
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    machine.namespace.ip("link set eth0 address 02:00:00:00:77:01");
    machine.namespace.ip("link add strange type bridge");
    other.ip("link set lan0 up");
    let mut service = machine.start();
    service.wait_ready();
    for name in ["lan", "eth7"] {
        service.wait_lack(name, &[&format!("no card fits [network.links.{name}]"), "eth0 (02:00:00:00:77:01)"]);
    }
    service.wait_lack("tail", &["there is no link eth7"]);
    service.wait_lack("strange", &["no entry of [network.links] is for it: it is left as it is"]);
    service.wait_lack("eth0", &["no DHCP server offers an address"]);
    service.wait_lack("eth0", &["no entry of [network.links] is for it: a card asks DHCP then"]);

    machine.namespace.connect("eth7", &other, "lan7");
    other.ip("link set lan7 up");
    service.wait("a card for the entry", |request| match request {
        Request::Links { links } => {
            let ours: Vec<&Link> = links.iter().filter(|link| link.name == "eth7").collect();
            matches!(&ours[..], [link] if link.carrier && link.missing.is_empty()).then_some(())
        }
        _ => None,
    });
}

#[test]
fn an_address_of_ipv6_that_another_machine_has_is_named_until_the_link_has_another() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let fixed = |address: &str| format!("[network.links.eth0]\ndhcp = false\naddresses = ['{address}/64']\n");
    let machine = Machine::new(&fixed("2001:db8::2"));
    let router = Router::new(&machine);
    router.namespace.ip("address add 2001:db8::2/64 dev lan0 nodad");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_lack("eth0", &["another machine has the address 2001:db8::2"]);
    service.apply(&fixed("2001:db8::3"));
    wait_whole(&mut service);
    // One that is made of what a router says, which the kernel takes away.
    let shown = machine.namespace.ip("-o -6 address show dev eth0 scope link");
    let own = shown.split_whitespace().find(|word| word.starts_with("fe80::")).unwrap();
    let made = own.split('/').next().unwrap().replace("fe80::", "fd77:1:2:3:");
    router.namespace.ip(&format!("address add {made}/64 dev lan0 nodad"));
    let _advertising = router.advertise("MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77:1:2:3::/64 { };");
    service.wait_lack("eth0", &["another machine has the address fd77:1:2:3:"]);
    // Nobody listens to the router any more.
    service.apply(&format!("{}ipv6 = 'static'\n", fixed("2001:db8::3")));
    wait_whole(&mut service);
}

fn wait_whole(service: &mut Running) {
    service.wait("nothing is missing", |request| match request {
        Request::Links { links } => {
            links.iter().any(|link| link.name == "eth0" && link.missing.is_empty()).then_some(())
        }
        _ => None,
    });
}

#[test]
fn a_name_that_another_link_has_is_said_and_taken_when_that_one_goes() {
    if !possible(&["ip"]) {
        return;
    }
    let machine = Machine::new(
        "[network.links.near]\nmatch = { mac = '02:00:00:00:66:*' }\nrename = 'lan0'\naddresses = ['192.0.2.7/24']\n",
    );
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "far0");
    machine.namespace.ip("link set eth0 address 02:00:00:00:66:01");
    machine.namespace.ip("link add lan0 type bridge");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_lack("eth0", &["its name is not lan0", "another link has it"]);
    service.wait_address("eth0", "192.0.2.7");
    machine.namespace.ip("link del lan0");
    service.wait_address("lan0", "192.0.2.7");
}
