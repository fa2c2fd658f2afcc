//! Names of images, normalised as Docker does it.
//!
//! `nginx` is `docker.io/library/nginx:latest`; `quay.io/a/b@sha256:…` stays what it is. The grammar is that of the
//! distribution project's `reference` package: a first component with a dot, a colon or capital letters, or
//! `localhost`, is a registry; everything else is a path on Docker Hub.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The longest repository name with its registry, in bytes (distribution's `NameTotalLengthMax`).
const NAME_BYTES: usize = 255;

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing.
    #[error("an image's name is empty")]
    Empty,
    /// The registry is not a host name with an optional port.
    #[error("{registry:?} is not a registry (a host name and, optionally, a port)")]
    Registry {
        /// As given.
        registry: String,
    },
    /// The path breaks the grammar.
    #[error("{path:?} is not an image's name: it has lower-case letters, digits and single separators (. _ __ - /)")]
    Path {
        /// As given.
        path: String,
    },
    /// An image's ID instead of its name.
    #[error("{id} is an image's ID; images are named, or pinned with name@sha256:{id}")]
    Id {
        /// As given.
        id: String,
    },
    /// The tag breaks the grammar.
    #[error("{tag:?} is not a tag (up to 128 letters, digits, dots, dashes and underscores)")]
    Tag {
        /// As given.
        tag: String,
    },
    /// The digest does.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Longer than any registry takes.
    #[error("an image's name has at most {NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A complete name: registry, path, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host and port; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path on its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` if neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins the image.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry, path and tag, without the digest; none if there is no tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}/{}:{tag}", self.registry, self.path))
    }
}

impl Reference {
    /// What an image is found by: registry and path, with the digest if there is one, else with the tag.
    pub fn key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}/{}@{digest}", self.registry, self.path),
            (None, Some(tag)) => format!("{}/{}:{tag}", self.registry, self.path),
            (None, None) => format!("{}/{}", self.registry, self.path),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        // As with Docker: it would be the name of a repository that nobody has.
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Id { id: text.to_owned() });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(name);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if registry.is_some_and(|registry| !is_registry(registry)) {
            return Err(ReferenceError::Registry { registry: registry.unwrap_or_default().to_owned() });
        }
        if !is_path(path) {
            return Err(ReferenceError::Path { path: path.to_owned() });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { tag: tag.to_owned() });
        }
        let registry = match registry {
            None | Some("index.docker.io") => "docker.io".to_owned(),
            Some(registry) => registry.to_owned(),
        };
        let official = registry == "docker.io" && !path.contains('/');
        let path = if official { format!("library/{path}") } else { path.to_owned() };
        let bytes = registry.len() + 1 + path.len();
        if bytes > NAME_BYTES {
            return Err(ReferenceError::TooLong { bytes });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry, path, tag, digest })
    }
}

/// Splits off the first component if it is a registry's.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) };
            let is_address = address.contains(':') && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
            (if is_address { "address" } else { "" }, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port = |port: &str| {
        // Rust's numbers may have a sign.
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let word = rest.trim_start_matches(alphanumeric);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        let separator = word.len() - word.trim_start_matches(['.', '_', '-']).len();
        let (separator, next) = word.split_at(separator);
        if !matches!(separator, "." | "_" | "__") && (separator.is_empty() || separator.chars().any(|c| c != '-')) {
            return false;
        }
        rest = next;
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word) && tag.len() <= 128 && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed_as_docker_does() {
        for (short, long) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("someone/tool", "docker.io/someone/tool:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/tool", "localhost/tool:latest"),
            ("localhost:5000/a/b:x_Y.z-1", "localhost:5000/a/b:x_Y.z-1"),
            ("Registry/tool", "Registry/tool:latest"),
            ("[::1]:5000/tool", "[::1]:5000/tool:latest"),
            ("a__b/c-d---e.f", "docker.io/a__b/c-d---e.f:latest"),
        ] {
            assert_eq!(short.parse::<Reference>().unwrap().to_string(), long);
        }
    }

    #[test]
    fn a_digest_replaces_the_default_tag() {
        let pinned: Reference = format!("ghcr.io/a/b@sha256:{HEX}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(Digest::of(b""))));
        let both: Reference = format!("a/b:1@sha256:{HEX}").parse().unwrap();
        assert_eq!(both.tagged().unwrap(), "docker.io/a/b:1");
        assert_eq!(both.to_string(), format!("docker.io/a/b:1@sha256:{HEX}"));
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for text in [
            "",
            ":tag",
            "a/",
            "/a",
            "a//b",
            "A",
            "a b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:-x",
            "a:x/y",
            "a@",
            "a@sha256:12",
            "host:port/a",
            "host:0/a",
            "-h.x/a",
            "h..x/a",
            "a.b/",
            "../etc",
            "a/../b",
            "é",
            "[::1/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
        assert!(matches!(
            "a/".repeat(150).trim_end_matches('/').parse::<Reference>(),
            Err(ReferenceError::TooLong { .. })
        ));
    }
}
