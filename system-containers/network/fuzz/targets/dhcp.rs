//! DHCPv4: any message is read, and no client falls over one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| berth_network::fuzzing::dhcp(bytes));
