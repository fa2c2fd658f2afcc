//! A name server: dnsmasq, which knows what its settings say and nothing else.

use super::{Namespace, Program, eventually};

const FIXED: &[&str] = &[
    "dnsmasq",
    "-k",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
    "--user=root",
    "--conf-file=/dev/null",
    "--pid-file=",
];

/// Starts it at an address of the namespace, and waits until it answers.
pub fn serve(namespace: &Namespace, address: &str, settings: &[&str]) -> Program {
    let listen = format!("--listen-address={address}");
    let program = namespace.start(&[FIXED, &[&listen], settings].concat());
    eventually("dnsmasq listens", || {
        let asked = namespace.try_run(&format!("dig +time=1 +tries=1 @{address} up"));
        asked.status.success().then_some(())
    });
    program
}
