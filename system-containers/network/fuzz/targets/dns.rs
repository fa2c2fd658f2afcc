//! DNS: any bytes are read as a query and as an answer, and what is kept is what came.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| berth_network::fuzzing::dns(bytes));
