//! Names and paths: text with a grammar.

use std::net::IpAddr;

use thiserror::Error;

use crate::text::checked_string;

/// Why a name is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More than the field's limit.
    #[error("it has {length} characters, {limit} is the most")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not in the alphabet.
    #[error("it has {character:?}, which must not be there")]
    Character {
        /// The first one that is wrong.
        character: char,
    },
    /// A good character at a place where it is not.
    #[error("{part:?} must not start or end with {character:?}")]
    Edge {
        /// The label or component.
        part: String,
        /// The character at its edge.
        character: char,
    },
    /// A path that depends on where one stands.
    #[error("it does not start with \"/\"")]
    Relative,
    /// `..`, or a component that is empty.
    #[error("it has the component {component:?}")]
    Component {
        /// The component.
        component: String,
    },
    /// The beginning of a path on Docker Hub where a registry must stand.
    #[error("{name:?} is no registry; Docker Hub is \"docker.io\"")]
    Registry {
        /// What stands there.
        name: String,
    },
    /// A digest that names no algorithm or has a wrong length.
    #[error("the digest {digest:?} is not \"sha256:\" and 64 hexadecimal digits")]
    Digest {
        /// What stands behind the `@`.
        digest: String,
    },
}

pub(crate) fn check_length(text: &str, limit: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        length if length > limit => Err(NameError::TooLong { length, limit }),
        _ => Ok(()),
    }
}

pub(crate) fn check_characters(text: &str, good: impl Fn(char) -> bool) -> Result<(), NameError> {
    match text.chars().find(|character| !good(*character)) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

pub(crate) fn check_edges(part: &str, bad: &[char]) -> Result<(), NameError> {
    for character in [part.chars().next(), part.chars().next_back()].into_iter().flatten() {
        if bad.contains(&character) {
            return Err(NameError::Edge { part: part.to_owned(), character });
        }
    }
    Ok(())
}

checked_string! {
    /// A host name as RFC 1123 has it: labels of letters, digits and inner hyphens, parted by dots. At most 64 bytes:
    /// what sethostname(2) takes.
    HostName, NameError, check_host_name, "a host name such as \"dock1\" or \"dock1.example.org\""
}

fn check_host_name(text: &str) -> Result<(), NameError> {
    check_length(text, 64)?;
    check_characters(text, |character| character.is_ascii_alphanumeric() || character == '-' || character == '.')?;
    for label in text.split('.') {
        check_length(label, 63)?;
        check_edges(label, &['-'])?;
    }
    Ok(())
}

checked_string! {
    /// Who is asked for the time: an address or a host name.
    TimeServer, NameError, check_time_server, "an address or a host name, such as \"192.0.2.1\" or \"ntp.example.org\""
}

fn check_time_server(text: &str) -> Result<(), NameError> {
    text.parse::<IpAddr>().map(drop).or_else(|_| check_host_name(text))
}

checked_string! {
    /// The name of a container: small letters, digits, inner hyphens, dots and underscores; at most 63 bytes, so
    /// that it is a file name, a cgroup's name and, where it has no underscore, a DNS label.
    ContainerName, NameError, check_container_name,
    "a name of at most 63 small letters, digits, \"-\", \"_\" and \".\" that starts and ends with a letter or digit"
}

pub(crate) fn check_container_name(text: &str) -> Result<(), NameError> {
    check_length(text, 63)?;
    check_characters(text, |character| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_' | '.')
    })?;
    check_edges(text, &['-', '_', '.'])
}

checked_string! {
    /// The name of a volume; a directory's name on the state partition.
    VolumeName, NameError, check_volume_name,
    "a volume's name: at most 63 letters, digits, \"-\", \"_\" and \".\", starting and ending with a letter or digit"
}

fn check_volume_name(text: &str) -> Result<(), NameError> {
    check_length(text, 63)?;
    check_characters(text, |character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.'))?;
    check_edges(text, &['-', '_', '.'])
}

checked_string! {
    /// An absolute path without `..`, `.` or empty components, and without control characters.
    AbsolutePath, NameError, check_absolute_path, "an absolute path such as \"/srv/data\""
}

fn check_absolute_path(text: &str) -> Result<(), NameError> {
    // PATH_MAX counts the terminating NUL.
    check_length(text, 4095)?;
    check_characters(text, |character| !character.is_control())?;
    let Some(inner) = text.strip_prefix('/') else {
        return Err(NameError::Relative);
    };
    if inner.is_empty() {
        return Ok(());
    }
    // A slash at the end is what people type for a directory.
    for component in inner.strip_suffix('/').unwrap_or(inner).split('/') {
        if matches!(component, "" | "." | "..") {
            return Err(NameError::Component { component: component.to_owned() });
        }
    }
    Ok(())
}

checked_string! {
    /// An image's name: `[registry/]repository[:tag][@sha256:…]`. Only its alphabet is checked here, the engine
    /// resolves it.
    ImageName, NameError, check_image_name, "an image such as \"docker.io/library/nginx:1.27\""
}

fn check_image_name(text: &str) -> Result<(), NameError> {
    check_length(text, 512)?;
    let name = match text.split_once('@') {
        None => text,
        Some((name, digest)) => {
            let good = digest.strip_prefix("sha256:").is_some_and(|hex| {
                hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            });
            if !good {
                return Err(NameError::Digest { digest: digest.to_owned() });
            }
            name
        }
    };
    check_length(name, 512)?;
    check_characters(name, |character| {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '/' | ':' | '[' | ']')
    })?;
    for component in name.split('/') {
        check_length(component, 255)?;
    }
    check_edges(name, &['-', '_', '.', ':', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good<T: std::str::FromStr>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn host_names_are_those_of_rfc_1123() {
        for name in ["a", "dock1", "dock1.example.org", "1", "a-b", &"a".repeat(63)] {
            assert!(good::<HostName>(name), "{name}");
        }
        let labels = format!("{}.bcd", "a".repeat(61));
        for name in ["", "-a", "a-", "a_b", "a..b", ".", "a.", "ä", "a b", &"a".repeat(64), &labels] {
            assert!(!good::<HostName>(name), "{name}");
        }
    }

    #[test]
    fn container_names_are_file_names_that_need_no_quoting() {
        for name in ["web", "web-1", "a.b_c", "0", &"a".repeat(63)] {
            assert!(good::<ContainerName>(name), "{name}");
        }
        for name in ["", ".", "..", "-web", "web-", "Web", "a/b", "a b", "a\n", &"a".repeat(64)] {
            assert!(!good::<ContainerName>(name), "{name}");
        }
    }

    #[test]
    fn absolute_paths_lead_nowhere_else() {
        for path in ["/", "/a", "/a/b/", "/a b/ä", "/...", "/.a"] {
            assert!(good::<AbsolutePath>(path), "{path}");
        }
        for path in ["", "a", "./a", "/..", "/a/../b", "/a/./b", "/a//b", "//", "/a\0b", "/a\n", &"/a".repeat(2048)] {
            assert!(!good::<AbsolutePath>(path), "{path}");
        }
    }

    #[test]
    fn image_names_have_the_alphabet_of_references() {
        let digest = format!("nginx@sha256:{}", "0a".repeat(32));
        for name in ["nginx", "nginx:1.27", "localhost:5000/a/b_c:v1", "[::1]:5000/a", "ghcr.io/a/B", &digest] {
            assert!(good::<ImageName>(name), "{name}");
        }
        for name in ["", "nginx:", "/nginx", "a//b", "nginx latest", "nginx@sha256:12", "nginx@", "https://a/b?c"] {
            assert!(!good::<ImageName>(name), "{name}");
        }
    }
}
