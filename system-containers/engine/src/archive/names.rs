//! What an image of an archive is called.
//!
//! Docker and containerd write a whole name into an annotation. Others (skopeo, umoci, buildah) write only what was
//! asked for, often a bare tag; the archive's file name then gives the rest: `images/web.tar` with the tag `1.2` is
//! `web:1.2`.

use crate::oci::{CONTAINERD_NAME, Descriptor, REFERENCE_NAME};
use crate::reference::Reference;

/// The names that a descriptor of index.json gives its image.
pub fn of_descriptor(descriptor: &Descriptor, stem: &str) -> Vec<Reference> {
    if let Some(name) = descriptor.annotation(CONTAINERD_NAME).and_then(|name| name.parse().ok()) {
        return vec![name];
    }
    let Some(name) = descriptor.annotation(REFERENCE_NAME) else { return Vec::new() };
    if name.contains(['/', ':']) {
        return name.parse().ok().into_iter().collect();
    }
    // A single word may be a tag or a repository.
    let mut names: Vec<Reference> = from_stem(stem, Some(name)).into_iter().collect();
    if name != "latest" {
        names.extend(name.parse::<Reference>().ok().filter(|name| !names.contains(name)));
    }
    names
}

/// A name made from the archive's.
pub fn from_stem(stem: &str, tag: Option<&str>) -> Option<Reference> {
    format!("{stem}:{}", tag.unwrap_or("latest")).parse().ok()
}

/// A file name without the endings that archives have.
pub fn stem(file_name: &str) -> &str {
    let mut name = file_name;
    for ending in [".gz", ".tgz", ".zst", ".zstd", ".xz", ".txz", ".bz2", ".tbz2", ".tbz", ".tar", ".oci", ".docker"] {
        name = name.strip_suffix(ending).unwrap_or(name);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(annotation: &str, value: &str) -> Vec<String> {
        let text = format!(
            r#"{{"digest":"{}","size":1,"annotations":{{"{annotation}":"{value}"}}}}"#,
            crate::digest::Digest::of(b"")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        of_descriptor(&descriptor, "web").iter().map(Reference::to_string).collect()
    }

    #[test]
    fn whole_names_are_taken_and_parts_completed() {
        assert_eq!(named(CONTAINERD_NAME, "docker.io/library/nginx:1"), ["docker.io/library/nginx:1"]);
        assert_eq!(named(REFERENCE_NAME, "quay.io/a/b"), ["quay.io/a/b:latest"]);
        assert_eq!(named(REFERENCE_NAME, "nginx:1"), ["docker.io/library/nginx:1"]);
        assert_eq!(named(REFERENCE_NAME, "1.2"), ["docker.io/library/web:1.2", "docker.io/library/1.2:latest"]);
        assert_eq!(named(REFERENCE_NAME, "latest"), ["docker.io/library/web:latest"]);
        assert_eq!(named("other", "x"), [""; 0]);
    }

    #[test]
    fn endings_are_not_part_of_a_name() {
        let names = ["web.tar", "web.tar.gz", "web.tgz", "web.oci.tar.zst", "web.tar.xz", "web.tbz2", "web"];
        assert_eq!(names.map(stem), ["web"; 7]);
        assert_eq!(stem("web-1.2.tar"), "web-1.2");
    }
}
