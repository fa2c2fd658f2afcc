//! What PID 1 is told that links lack, for `berth why link`.

mod support;

use berth_control::message::{Link, Request};
use support::{Machine, Namespace, possible};

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
