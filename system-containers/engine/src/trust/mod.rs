//! Which images are taken: the configuration's `[trust]`, applied to what comes from registries.
//!
//! - [`key`]: public keys, [`signature`]: cosign's signatures and where they lie
//!
//! A policy is asked before anything is fetched, and a signature is checked before a layer is. What is remembered with an
//! image is by which policy it was taken ([`Policy::digest`]): under another one it is pulled again before it runs.
//! A digest, or a name that was given by hand, changes nothing of that. Archives come from whoever writes the policy too,
//! and are not asked: see `store/origin.rs`.

mod bundle;
pub mod key;
pub mod signature;

use std::collections::BTreeMap;

use berth_config::{Requirement, Trust, TrustScope, trust_of};

use self::key::Key;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::RegistryError;

/// Why an image is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It may be another one tomorrow.
    #[error("the policy for {scope} only takes images with a digest: write {image}@sha256:…")]
    Unpinned {
        /// The scope.
        scope: String,
        /// As asked for.
        image: String,
    },
    /// A key of the policy is of no use.
    #[error("the policy for {scope} has a key that cannot be used: {key}: {reason}")]
    Key {
        /// The scope.
        scope: String,
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
    /// Nobody has signed.
    #[error("the policy for {scope} wants a signature, and {image} has none")]
    Unsigned {
        /// The scope.
        scope: String,
        /// Its digest.
        image: Digest,
    },
    /// Somebody else has, or something else.
    #[error("the policy for {scope} wants a signature, and none of {image} is good: {reason}")]
    Signature {
        /// The scope.
        scope: String,
        /// Its digest.
        image: Digest,
        /// What is wrong with the last one.
        reason: String,
    },
    /// The registry does not tell.
    #[error("look for signatures")]
    Registry(#[from] RegistryError),
}

/// What is asked of one image.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    scope: String,
    keys: Option<Vec<Key>>,
    digest: Option<Digest>,
}

impl Policy {
    /// The one that counts for an image. `read` gives a file of the user-data partition.
    pub fn of(
        entries: &BTreeMap<TrustScope, Trust>,
        image: &Reference,
        read: impl Fn(&berth_config::DataFile) -> Result<Vec<u8>, RegistryError>,
    ) -> Result<Self, TrustError> {
        let Some((scope, trust)) = trust_of(entries, &place(image)) else { return Ok(Self::default()) };
        refuse_unpinned(entries, image)?;
        if trust.require != Requirement::Signature {
            return Ok(Self::default());
        }
        let key = |key| {
            Key::read(key, &read).map_err(|reason| TrustError::Key {
                scope: scope.to_string(),
                key: key::describe(key),
                reason,
            })
        };
        let keys = trust.keys.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { scope: scope.to_string(), keys: Some(keys), digest: digest(entries, image) })
    }

    /// Who must have signed; none if nobody has to.
    pub fn keys(&self) -> Option<&[Key]> {
        self.keys.as_deref()
    }

    /// Where it counts.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Tells it from others, if it asks for signatures.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

/// Refuses an image that needs a digest and has none. Needs no file.
pub fn refuse_unpinned(entries: &BTreeMap<TrustScope, Trust>, image: &Reference) -> Result<(), TrustError> {
    match trust_of(entries, &place(image)) {
        Some((scope, trust)) if trust.require == Requirement::Digest && image.digest().is_none() => {
            Err(TrustError::Unpinned { scope: scope.to_string(), image: image.to_string() })
        }
        _ => Ok(()),
    }
}

/// What tells the policy for an image from others, if it asks for signatures. Needs no file, so another key in the same file
/// is the same policy.
pub fn digest(entries: &BTreeMap<TrustScope, Trust>, image: &Reference) -> Option<Digest> {
    let (_, trust) = trust_of(entries, &place(image)).filter(|(_, trust)| trust.require == Requirement::Signature)?;
    let keys: Vec<String> = trust.keys.iter().map(ToString::to_string).collect();
    Some(Digest::of(keys.join("\n").as_bytes()))
}

fn place(image: &Reference) -> String {
    format!("{}/{}", image.registry(), image.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> BTreeMap<TrustScope, Trust> {
        toml::from_str(text).unwrap()
    }

    fn policy(entries: &BTreeMap<TrustScope, Trust>, image: &str) -> Result<Policy, TrustError> {
        let gone = |file: &berth_config::DataFile| {
            Err(RegistryError::File { path: file.to_string(), reason: "it is gone".to_owned() })
        };
        Policy::of(entries, &image.parse().unwrap(), gone)
    }

    #[test]
    fn an_image_without_a_digest_is_refused_where_one_is_asked_for() {
        let entries = entries("'docker.io' = { require = 'digest' }\n'docker.io/library' = { require = 'nothing' }");
        let error = policy(&entries, "acme/web:1").unwrap_err().to_string();
        assert_eq!(
            error,
            "the policy for docker.io only takes images with a digest: write docker.io/acme/web:1@sha256:…"
        );
        assert!(policy(&entries, &format!("acme/web:1@{}", Digest::of(b""))).is_ok());
        assert!(policy(&entries, "nginx").is_ok() && policy(&entries, "ghcr.io/a/b").is_ok());
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let entries = entries("'ghcr.io' = { require = 'signature', keys = ['keys/a.pub'] }");
        let error = policy(&entries, "ghcr.io/a/b").unwrap_err().to_string();
        assert!(error.contains("keys/a.pub: it is gone"), "{error}");
        assert!(policy(&entries, "quay.io/a/b").unwrap().keys().is_none());
    }

    #[test]
    fn another_list_of_keys_is_another_policy() {
        let image: Reference = "ghcr.io/a/b".parse().unwrap();
        let of = |keys: &str| digest(&entries(&format!("'*' = {{ require = 'signature', keys = {keys} }}")), &image);
        assert!(of("['a']").is_some() && of("['a']") == of("['a']") && of("['a']") != of("['a', 'b']"));
        assert_eq!(digest(&entries("'*' = { require = 'digest' }"), &image), None);
    }
}
