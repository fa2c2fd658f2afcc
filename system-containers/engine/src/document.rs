//! The JSON documents of images, wherever they come from: what they must say to be of use here.

use serde::Deserialize;

use crate::limits;
use crate::oci::{self, Descriptor, ImageConfig, Manifest};

/// Why a document is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not the JSON it should be.
    #[error("{name} is malformed")]
    Malformed {
        /// The document.
        name: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest without what makes it one.
    #[error("{name} names no configuration and no layers: it is no image")]
    NoImage {
        /// The document.
        name: String,
    },
    /// An index and a manifest in one document, which others may understand differently (CVE-2021-41190).
    #[error("{name} is an index and a manifest at once: what it means is not clear, so it is not taken")]
    Ambiguous {
        /// The document.
        name: String,
    },
    /// Entries of an index that cannot be used.
    #[error("{entries} of its entries have no digest by sha256, or no size, and are passed over")]
    Odd {
        /// How many.
        entries: usize,
    },
    /// Nothing is in it.
    #[error("it has no layers: there is nothing in it to run")]
    Empty,
    /// Something else that registries keep: a chart, a signature, a model.
    #[error("it is an artifact ({kind}) and no container image: there is nothing in it to run")]
    Artifact {
        /// Its kind, as it says itself.
        kind: String,
    },
    /// For another machine.
    #[error("it is for {offered}, this machine is linux/{}", oci::ARCHITECTURE)]
    Platform {
        /// What there is.
        offered: String,
    },
    /// Docker's first manifest format.
    #[error("it has a manifest of Docker's schema 1, which is obsolete; save or push it again with a newer Docker")]
    SchemaOne,
    /// Layers that are somewhere else.
    #[error("its layer {digest} is a foreign one, which must not be distributed with it: such images are not taken")]
    Foreign {
        /// The layer.
        digest: crate::digest::Digest,
    },
    /// Indexes in indexes in indexes.
    #[error("its indexes are nested more than {} deep", limits::INDEX_DEPTH)]
    Nested,
    /// The configuration and the manifest disagree, or there are too many.
    #[error(
        "it has {layers} layers and its configuration {diff_ids}; they must agree and be at most {}",
        limits::LAYERS
    )]
    Layers {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

/// The configuration of what has none (OCI image specification 1.1, "Guidelines for Artifact Usage").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What the configurations of images are called, by OCI and by Docker; old programs have nothing there, or the last.
const CONFIGURATIONS: [&str; 4] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "",
];

/// What a manifest turned out to be.
#[derive(Debug)]
pub enum Kind {
    /// A choice of images.
    Index(Vec<Descriptor>),
    /// An image.
    Image {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
}

/// Reads a document.
pub fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed { name: name.to_owned(), source })
}

/// Reads an index or a manifest.
pub fn manifest(name: &str, bytes: &[u8]) -> Result<Kind, DocumentError> {
    // Docker's first format has no digests where the second one has them.
    let version: Version = parse(name, bytes)?;
    if version.schema_version == 1 {
        return Err(DocumentError::SchemaOne);
    }
    let manifest: Manifest = parse(name, bytes)?;
    if let Some(manifests) = manifest.manifests {
        if manifest.config.is_some() || manifest.layers.is_some() {
            return Err(DocumentError::Ambiguous { name: name.to_owned() });
        }
        return Ok(Kind::Index(manifests.known));
    }
    let (Some(config), Some(layers)) = (manifest.config, manifest.layers) else {
        return Err(DocumentError::NoImage { name: name.to_owned() });
    };
    if config.media_type == EMPTY {
        let kind = manifest.artifact_type.filter(|kind| !kind.is_empty());
        return Err(DocumentError::Artifact { kind: kind.unwrap_or_else(|| EMPTY.to_owned()) });
    }
    let foreign = |layer: &&Descriptor| ["foreign", "nondistributable"].iter().any(|it| layer.media_type.contains(it));
    match layers.iter().find(foreign) {
        Some(layer) => Err(DocumentError::Foreign { digest: layer.digest }),
        None => Ok(Kind::Image { config, layers }),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    #[serde(default)]
    schema_version: u32,
}

/// Reads a configuration and checks it against the number of layers and this machine. `kind` is its media type, which is
/// looked at only if it cannot be read: whoever makes images is free in what to write there.
pub fn image_config(name: &str, kind: &str, bytes: &[u8], layers: usize) -> Result<ImageConfig, DocumentError> {
    let config: ImageConfig = match parse(name, bytes) {
        Err(_) if !CONFIGURATIONS.contains(&kind) => return Err(DocumentError::Artifact { kind: kind.to_owned() }),
        parsed => parsed?,
    };
    let is_foreign = |value: &str, is_ours: bool| !value.is_empty() && !is_ours;
    if is_foreign(&config.os, config.os.eq_ignore_ascii_case("linux"))
        || is_foreign(&config.architecture, oci::is_our_architecture(&config.architecture))
    {
        return Err(DocumentError::Platform { offered: format!("{}/{}", config.os, config.architecture) });
    }
    let diff_ids = config.rootfs.diff_ids.len();
    if diff_ids == 0 && layers == 0 {
        return Err(DocumentError::Empty);
    }
    if diff_ids != layers || layers > limits::LAYERS {
        return Err(DocumentError::Layers { layers, diff_ids });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_called_what_it_is() {
        let digest = crate::digest::Digest::of(b"");
        let read = |more: &str, kind: &str| {
            let config = format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":2}}"#);
            manifest("m", format!(r#"{{"schemaVersion":2,{more}"config":{config},"layers":[]}}"#).as_bytes())
        };
        let refusal = |more: &str| read(more, EMPTY).unwrap_err().to_string();
        assert!(refusal(r#""artifactType":"application/x-model","#).contains("an artifact (application/x-model)"));
        assert!(refusal("").contains("an artifact (application/vnd.oci.empty.v1+json)"));
        let helm = "application/vnd.cncf.helm.config.v1+json";
        assert!(read("", helm).is_ok());
        let config = |kind: &str, text: &str| image_config("c", kind, text.as_bytes(), 1);
        let error = config(helm, r#"{"name":"web","version":"1.0.0"}"#).unwrap_err().to_string();
        assert!(
            error.contains("an artifact (application/vnd.cncf.helm.config.v1+json) and no container image"),
            "{error}"
        );
        for kind in CONFIGURATIONS {
            assert!(config(kind, "{}").unwrap_err().to_string().contains("c is malformed"), "{kind}");
        }
        // An image by another name.
        let text = |diff_ids: &str| {
            format!(r#"{{"architecture":"{}","rootfs":{{"diff_ids":{diff_ids}}}}}"#, std::env::consts::ARCH)
        };
        assert!(config("application/x-image", &text(&format!(r#"["{digest}"]"#))).is_ok());
        for none in ["[]", "null"] {
            let error = image_config("c", "", text(none).as_bytes(), 0).unwrap_err().to_string();
            assert_eq!(error, "it has no layers: there is nothing in it to run");
        }
    }

    #[test]
    fn what_could_be_an_index_or_an_image_is_neither() {
        let digest = crate::digest::Digest::of(b"");
        let entry = format!(r#"{{"digest":"{digest}","size":1}}"#);
        let index = format!(r#""manifests":[{entry}]"#);
        let read = |text: String| manifest("m", text.as_bytes());
        for more in [format!(r#""config":{entry}"#), r#""layers":[]"#.to_owned()] {
            let error = read(format!(r#"{{"schemaVersion":2,{index},{more}}}"#)).unwrap_err().to_string();
            assert!(error.contains("m is an index and a manifest at once"), "{error}");
        }
        assert!(read(format!(r#"{{"schemaVersion":2,{index},"config":null,"layers":null}}"#)).is_ok());
    }

    #[test]
    fn formats_that_are_of_no_use_are_told_apart() {
        let refusal = |text: &str| manifest("m", text.as_bytes()).unwrap_err().to_string();
        assert!(refusal(r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}"#).contains("schema 1"));
        assert!(refusal(r#"{"schemaVersion":2,"layers":[]}"#).contains("it is no image"));
        assert!(refusal("<html>").contains("m is malformed"));
        let digest = crate::digest::Digest::of(b"");
        for kind in ["docker.image.rootfs.foreign.diff.tar.gzip", "oci.image.layer.nondistributable.v1.tar+gzip"] {
            let layer = format!(r#"{{"mediaType":"application/vnd.{kind}","digest":"{digest}","size":1}}"#);
            let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[{layer}]}}"#);
            assert!(refusal(&text).contains("a foreign one"), "{kind}");
        }
    }
}
