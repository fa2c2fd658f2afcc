//! Routes that DHCP servers give in other ways than by option 121.

use crate::support::lan::Lan;
use crate::support::{Machine, eventually, possible};

/// What the machine has after a lease, with these options of the server.
fn routes(options: &[&str], count: usize) -> String {
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", options);
    let mut service = machine.start();
    service.wait_address("eth0", "10.77.0.");
    eventually("routes", || {
        let routes = machine.namespace.ip("route show proto dhcp");
        (routes.lines().count() == count).then_some(routes)
    })
}

const ROUTER: &str = "--dhcp-option=option:router,10.77.0.1";
const STATIC: &str = "--dhcp-option=33,10.9.9.9,10.77.0.7,192.168.8.0,10.77.0.8";

#[test]
fn static_routes_of_a_server_stand_beside_its_router() {
    if !possible(&["ip", "dnsmasq"]) {
        return;
    }
    let routes = routes(&[ROUTER, STATIC], 3);
    for wanted in ["default via 10.77.0.1 ", "10.9.9.9 via 10.77.0.7 ", "192.168.8.0/24 via 10.77.0.8 "] {
        assert!(routes.contains(wanted), "{routes}");
    }
}

#[test]
fn a_server_that_knows_only_microsofts_option_is_understood() {
    if !possible(&["ip", "dnsmasq"]) {
        return;
    }
    let routes = routes(&[ROUTER, STATIC, "--dhcp-option=249,0.0.0.0/0,10.77.0.5,192.168.9.0/24,10.77.0.7"], 2);
    for wanted in ["default via 10.77.0.5 ", "192.168.9.0/24 via 10.77.0.7 "] {
        assert!(routes.contains(wanted), "{routes}");
    }
}
