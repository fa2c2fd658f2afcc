//! Names of images: what is taken is complete, stays what it is when it is written and read again, and never names a
//! path that leads out of its registry.
#![no_main]

use berth_engine::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let written = reference.to_string();
    assert_eq!(written.parse::<Reference>().expect("what was written can be read"), reference);
    assert!(reference.tag().is_some() || reference.digest().is_some());
    assert!(!reference.path().split('/').any(|component| matches!(component, "" | "." | "..")));
    assert!(written.starts_with(&format!("{}/{}", reference.registry(), reference.path())));
    assert!(reference.registry().len() + reference.path().len() < 256);
    if let Some(tagged) = reference.tagged() {
        assert_eq!(tagged.parse::<Reference>().expect("a name without its digest").tag(), reference.tag());
    }
});
