//! config.json: any text is a value or an error that names a place in the text, and a value that is written is read
//! as the same.
#![no_main]

use berth_runtime::spec::{Process, Resources, Spec, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Err(error) = parse::<Process>(text) {
        let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        assert!(error.line <= lines, "{error}");
    }
    let _ = parse::<Resources>(text);
    let Ok(spec) = parse::<Spec>(text) else { return };
    let written = serde_json::to_vec(&spec).expect("a configuration can be written");
    assert_eq!(parse::<Spec>(&written).expect("what was written can be read"), spec);
    if let Err(error) = berth_runtime::check(&spec) {
        assert!(!error.to_string().is_empty());
    }
});
