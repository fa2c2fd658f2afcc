//! Router advertisements as the kernel hands them on: any bytes are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| berth_network::fuzzing::router_advertisement(bytes));
