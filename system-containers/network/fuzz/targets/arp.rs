//! ARP: any bytes are read, and what is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| berth_network::fuzzing::arp(bytes));
