//! Id maps: what is accepted maps every id once, and as the kernel would.
#![no_main]

use berth_runtime::spec::IdMapping;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|ranges: Vec<(u32, u32, u32)>| {
    let mappings: Vec<IdMapping> =
        ranges.into_iter().map(|(container_id, host_id, size)| IdMapping { container_id, host_id, size }).collect();
    berth_runtime::fuzzing::id_maps(&mappings);
});
