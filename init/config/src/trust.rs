//! `[trust.<scope>]`: what an image of a registry must show before it is taken.
//!
//! A scope is a registry, or a part of one, or `*` for all. Of those that an image's name lies in, the longest counts;
//! without any, every image is taken. A scope holds an image by whatever name of its registry it is called.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{NameError, check_length};
use crate::registries::{DataFile, MirrorName};
use crate::spelling::{official, place_spelling};
use crate::text::{checked_string, text_value};

/// What images of one scope must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// What is asked of an image.
    pub require: Requirement,
    /// The keys for `require = "signature"`: one of them must have signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PublicKey>,
}

/// What is asked of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// Nothing; for a part of a scope of which something is asked.
    Nothing,
    /// That it is called by its digest, which then decides what it is.
    Digest,
    /// A signature by one of `keys`, as `cosign sign --key` makes them.
    Signature,
}

impl Requirement {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Digest => "digest",
            Self::Signature => "signature",
        }
    }
}

/// The entry that counts for an image: `name` is its registry and path, such as `docker.io/library/nginx`.
pub fn trust_of<'a>(entries: &'a BTreeMap<TrustScope, Trust>, name: &str) -> Option<(&'a TrustScope, &'a Trust)> {
    let place = place_spelling(name);
    let place = official(&place).unwrap_or(place);
    let holding = entries.iter().filter_map(|entry| Some((entry.0.holds(&place)?, entry)));
    // `docker.io/library/nginx` says the same as `docker.io/nginx`, and says it more exactly.
    holding.max_by_key(|(held, (scope, _))| (*held, scope.as_str().len())).map(|(_, entry)| entry)
}

checked_string! {
    /// A registry, or a part of one, or `*`.
    TrustScope, NameError, check_scope, "\"*\", a registry or a part of one, such as \"ghcr.io/acme\""
}

fn check_scope(text: &str) -> Result<(), NameError> {
    if text == "*" {
        return Ok(());
    }
    text.parse::<MirrorName>()?;
    // As in images' names: everything else is a path on Docker Hub, and would never match here.
    let registry = text.split('/').next().unwrap_or_default();
    match registry == "localhost" || registry.contains(['.', ':']) || registry.contains(char::is_uppercase) {
        true => Ok(()),
        false => Err(NameError::Registry { name: registry.to_owned() }),
    }
}

impl TrustScope {
    /// How many bytes of an image's place it names, if the image lies in it; `*` names none.
    fn holds(&self, place: &str) -> Option<usize> {
        if self.as_str() == "*" {
            return Some(0);
        }
        let part = self.spelling();
        let is_in = |part: &String| {
            place.strip_prefix(part.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        [official(&part), Some(part)].into_iter().flatten().find(is_in).map(|part| part.len())
    }

    /// As every other way to write it is spelt too.
    pub(crate) fn spelling(&self) -> String {
        place_spelling(self.as_str())
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublicKey {
    /// The key itself, as PEM.
    Text(String),
    /// A file of the user-data partition with it.
    File(DataFile),
}

text_value!(PublicKey, "a file of the user-data partition such as \"keys/acme.pub\", or a public key as PEM");

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Why text is no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It begins like PEM.
    #[error("it is not one public key in PEM form, from \"{BEGIN}\" to \"{END}\"")]
    Pem,
    /// It is no file either.
    #[error(transparent)]
    File(#[from] NameError),
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if !text.trim_start().starts_with("-----BEGIN") {
            return Ok(Self::File(text.parse()?));
        }
        check_length(text, 8192)?;
        let inner = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(KeyError::Pem)?;
        let base64 = |character: char| character.is_ascii_alphanumeric() || "+/=\r\n".contains(character);
        if inner.trim().is_empty() || !inner.chars().all(base64) {
            Err(KeyError::Pem)
        } else {
            Ok(Self::Text(text.trim().to_owned()))
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::File(file) => file.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_scope_counts() {
        let text = "'*' = { require = 'digest' }\n'ghcr.io' = { require = 'nothing' }\n\
            'ghcr.io/acme' = { require = 'signature', keys = ['k'] }\n";
        let entries: BTreeMap<TrustScope, Trust> = toml::from_str(text).unwrap();
        let scope = |name: &str| trust_of(&entries, name).map(|(scope, _)| scope.as_str().to_owned()).unwrap();
        assert_eq!(scope("ghcr.io/acme/web"), "ghcr.io/acme");
        assert_eq!(scope("ghcr.io/acme"), "ghcr.io/acme");
        assert_eq!(scope("ghcr.io/acmes/web"), "ghcr.io");
        assert_eq!(scope("ghcr.io.example/web"), "*");
        assert_eq!(trust_of(&BTreeMap::new(), "ghcr.io/acme"), None);
    }

    #[test]
    fn no_spelling_of_a_registry_leads_past_its_scope() {
        let entries = |scope: &str| BTreeMap::from([(scope.parse::<TrustScope>().unwrap(), digest())]);
        let holds = |scope: &str, name: &str| trust_of(&entries(scope), name).is_some();
        for (scope, name) in [
            ("ghcr.io/acme", "GHCR.io/acme/x"),
            ("ghcr.io/acme", "ghcr.io:443/acme/x"),
            ("GHCR.io:443/acme", "ghcr.io/acme/x"),
            ("docker.io", "registry-1.docker.io/library/x"),
            ("docker.io/library", "registry-1.docker.io/x"),
            ("index.docker.io", "docker.io/library/nginx"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("docker.io/nginx", "docker.io/nginx/ingress"),
        ] {
            assert!(holds(scope, name), "{scope} {name}");
        }
        for (scope, name) in [
            ("docker.io/nginx", "docker.io/library/nginxes"),
            ("ghcr.io", "ghcr.io:5000/x"),
            ("ghcr.io/nginx", "ghcr.io/library/nginx"),
        ] {
            assert!(!holds(scope, name), "{scope} {name}");
        }
        let both = ["docker.io/library", "docker.io/nginx"].map(|scope| (scope.parse().unwrap(), digest()));
        let both = BTreeMap::from(both);
        assert_eq!(trust_of(&both, "docker.io/library/nginx").unwrap().0.as_str(), "docker.io/nginx");
    }

    fn digest() -> Trust {
        Trust { require: Requirement::Digest, keys: Vec::new() }
    }

    #[test]
    fn a_scope_is_where_an_images_name_may_begin() {
        for scope in ["*", "docker.io", "docker.io/library/nginx", "localhost/a", "r:5000", "[::1]:5000/a"] {
            assert!(scope.parse::<TrustScope>().is_ok(), "{scope}");
        }
        for scope in ["", "nginx", "acme/web", "**", "ghcr.io/*", "ghcr.io/", "https://ghcr.io", "ghcr.io/A"] {
            assert!(scope.parse::<TrustScope>().is_err(), "{scope}");
        }
    }

    #[test]
    fn a_key_is_a_file_or_pem() {
        let pem = format!("{BEGIN}\nMCowBQYDK2VwAyEA\n{END}\n");
        assert!(matches!(pem.parse(), Ok(PublicKey::Text(_))));
        assert!(matches!("keys/a.pub".parse(), Ok(PublicKey::File(_))));
        let private = pem.replace("PUBLIC", "PRIVATE");
        let twice = format!("{pem}{pem}");
        for text in ["", "/etc/key", "../key", BEGIN, &private, &twice, &format!("{BEGIN}\n{END}")] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }
}
