//! Manifests, indexes and configurations: any text is a document or an error with words; an image never has layers that
//! are not to be taken, and the entry of an index that is chosen is one of its own, for this machine.
#![no_main]

use berth_engine::document::{self, Kind};
use berth_engine::platform;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    match document::manifest("it", text) {
        Ok(Kind::Index(manifests)) => match platform::choose(&manifests) {
            Ok(chosen) => {
                assert!(manifests.iter().any(|one| std::ptr::eq(one, chosen)));
                assert!(chosen.platform.as_ref().is_none_or(platform::is_ours));
            }
            Err(offered) => assert!(manifests.is_empty() || !offered.is_empty()),
        },
        Ok(Kind::Image { layers, .. }) => {
            assert!(layers.iter().all(|layer| !layer.media_type.contains("foreign")));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    for layers in [0, 1, 2] {
        if let Ok(config) = document::image_config("it", "", text, layers) {
            assert_eq!(config.rootfs.diff_ids.len(), layers);
        }
    }
});
