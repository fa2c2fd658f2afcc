//! The layers of images: where they are mounted, and when they are not any more.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use berth_control::message::PreparedLayer;
use berth_runtime::Layer;

use super::Supervisor;
use crate::mounts::LAYERS;

/// A layer for the runtime. It names what is wrong with one that cannot be.
pub(super) fn layer(prepared: &PreparedLayer) -> Result<Layer, String> {
    let broken = || format!("the engine named a layer that is none: {}", prepared.path.display());
    let name = prepared.path.file_name().ok_or_else(broken)?;
    let verity = prepared.verity.as_deref().map(|text| digest(text).ok_or_else(broken)).transpose()?;
    Ok(Layer::Image { file: prepared.path.clone(), verity, mount: Path::new(LAYERS).join(name) })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

impl Supervisor {
    /// Unmounts the layers that no container has any more: the engine may be about to remove them.
    pub(super) fn unmount_unused_layers(&self) {
        let images = self.containers.values().filter_map(|container| container.image.as_ref());
        let kept: BTreeSet<&OsStr> =
            images.flat_map(|image| &image.layers).filter_map(|layer| layer.path.file_name()).collect();
        match berth_runtime::remove_layers_but(Path::new(LAYERS), &kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => log::warn!("unmount unused layers: {error}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_mounted_by_its_name() {
        let prepared = PreparedLayer { path: "/var/x/abc".into(), verity: Some("0f".repeat(32)) };
        let mount = Path::new(LAYERS).join("abc");
        let image = Layer::Image { file: "/var/x/abc".into(), verity: Some([15; 32]), mount };
        assert_eq!(layer(&prepared), Ok(image));
        for verity in ["0f", "", &"xx".repeat(32), &"0f".repeat(33)] {
            assert!(layer(&PreparedLayer { verity: Some(verity.to_owned()), ..prepared.clone() }).is_err());
        }
        assert!(layer(&PreparedLayer { path: "/".into(), verity: None }).is_err());
    }
}
