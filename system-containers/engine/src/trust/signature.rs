//! cosign's signatures with a key: a manifest beside the image whose layers are what was signed.
//!
//! What is signed is a small document ("simple signing") that names the image's digest; the signature stands in an annotation
//! of its layer. Such a manifest is found by its tag `sha256-<hex>.sig`, or by asking who refers to the image (OCI
//! distribution specification 1.1, "Listing Referrers"), where newer signatures are too: see [`super::bundle`]. Transparency
//! logs and certificates are not read: a key is what the policy has.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::key::Key;
use super::{Policy, TrustError, bundle};
use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest, SIGNATURE};
use crate::registry::{Client, RegistryError};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const TYPE: &str = "cosign container image signature";
/// What cosign calls the manifest of a signature among the referrers.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The largest payload, in bytes: it is some hundred, a bundle some thousand.
const PAYLOAD_BYTES: u64 = 64 << 10;
/// The most signatures, and the most referrers of a kind, that are looked at, the last ones first: whoever may push can add
/// some, and cosign adds each signature behind the others.
const SIGNATURES: usize = 32;

/// What is signed.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// Looks for a good signature of an image: of the manifest that its name leads to, or of the one for this machine. Does
/// nothing if the policy asks for none. Who refers to the images is asked only if no signature has the usual name.
pub async fn verify(client: &Client, policy: &Policy, named: Digest, chosen: Digest) -> Result<(), TrustError> {
    let Some(keys) = policy.keys() else { return Ok(()) };
    let mut search = Search { client, keys, reason: None, failure: None };
    let images = if named == chosen { vec![named] } else { vec![named, chosen] };
    for image in &images {
        if search.finds_named(*image).await {
            return Ok(());
        }
    }
    for image in &images {
        if search.finds_referring(*image).await {
            return Ok(());
        }
    }
    let scope = policy.scope().to_owned();
    Err(match (search.failure, search.reason) {
        // There may be a good one where nobody could look.
        (Some(failure), _) => failure.into(),
        (None, Some(reason)) => TrustError::Signature { scope, image: named, reason },
        (None, None) => TrustError::Unsigned { scope, image: named },
    })
}

/// A search for a good signature. What goes wrong with one ends it not: another one may be good.
struct Search<'a> {
    client: &'a Client,
    keys: &'a [Key],
    /// What is wrong with the last signature that is none.
    reason: Option<String>,
    /// The first question that failed.
    failure: Option<RegistryError>,
}

impl Search<'_> {
    /// Looks at what has the name that cosign gives.
    async fn finds_named(&mut self, image: Digest) -> bool {
        self.finds(&format!("sha256-{}.sig", image.hex()), None, image).await
    }

    /// Looks at what refers to the image.
    async fn finds_referring(&mut self, image: Digest) -> bool {
        let mut seen = BTreeSet::new();
        for kind in [ARTIFACT, bundle::MEDIA_TYPE] {
            let asked = self.client.referrers(image, kind).await;
            let mut referrers = self.or_note(asked).unwrap_or_default();
            // Not every registry asks for the kind.
            referrers.retain(|referrer| bundle::may_sign(referrer) && seen.insert(referrer.digest));
            for digest in referrers.iter().map(|referrer| referrer.digest).rev().take(SIGNATURES) {
                if self.finds(&digest.to_string(), Some(digest), image).await {
                    return true;
                }
            }
        }
        false
    }

    /// Looks at the signatures of one manifest.
    async fn finds(&mut self, reference: &str, digest: Option<Digest>, image: Digest) -> bool {
        let asked = layers(self.client, reference, digest).await;
        for layer in self.or_note(asked).unwrap_or_default().iter().rev().take(SIGNATURES) {
            let checked = check(self.client, layer, self.keys, image).await;
            match self.or_note(checked) {
                Some(Ok(())) => return true,
                Some(Err(reason)) => self.reason = Some(reason),
                None => {}
            }
        }
        false
    }

    fn or_note<T>(&mut self, asked: Result<T, RegistryError>) -> Option<T> {
        match asked {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }
}

/// The payloads of a manifest; none if there is no such manifest.
async fn layers(client: &Client, reference: &str, digest: Option<Digest>) -> Result<Vec<Descriptor>, RegistryError> {
    let bytes = match client.manifest(reference, digest).await {
        Ok((bytes, _)) => bytes,
        Err(error) if error.is_absence() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // What is no manifest is no signature.
    let manifest: Option<Manifest> = serde_json::from_slice(&bytes).ok();
    let mut layers = manifest.and_then(|manifest| manifest.layers).unwrap_or_default();
    let is_one = |layer: &Descriptor| layer.media_type == PAYLOAD || layer.media_type == bundle::MEDIA_TYPE;
    layers.retain(|layer| is_one(layer) && layer.size <= PAYLOAD_BYTES);
    Ok(layers)
}

/// The inner error says what is wrong with this signature.
async fn check(
    client: &Client,
    layer: &Descriptor,
    keys: &[Key],
    image: Digest,
) -> Result<Result<(), String>, RegistryError> {
    let payload = client.document(layer).await?;
    Ok(match layer.media_type == PAYLOAD {
        true => judge(&payload, layer.annotation(SIGNATURE), keys, image),
        false => bundle::judge(&payload, keys, image),
    })
}

fn judge(payload: &[u8], signature: Option<&str>, keys: &[Key], image: Digest) -> Result<(), String> {
    let signature = signature.ok_or("it has no signature in its annotation")?;
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "its signature is not base64")?;
    // Before a word of it is believed.
    if !keys.iter().any(|key| key.has_signed(payload, &signature)) {
        return Err("it is not by a key of the policy".to_owned());
    }
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|error| format!("what is signed is malformed: {error}"))?;
    let Critical { image: Image { digest }, kind } = payload.critical;
    if kind != TYPE {
        return Err(format!("it signs a {kind:?}"));
    }
    if digest != image {
        return Err(format!("it is a signature of {digest}"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    pub fn signer() -> (EcdsaKeyPair, Key) {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).unwrap();
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut der = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        der.extend_from_slice(pair.public_key().as_ref());
        pem.push_str(&STANDARD.encode(der));
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        (pair, Key::from_pem(pem.as_bytes()).unwrap())
    }

    #[test]
    fn only_a_signature_of_this_image_by_a_key_of_the_policy_is_good() {
        let (pair, key) = signer();
        let (_, other) = signer();
        let (image, another) = (Digest::of(b"image"), Digest::of(b"another"));
        let document = |digest: Digest, kind: &str| {
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"x"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
            )
        };
        let sign = |text: &str| STANDARD.encode(pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref());
        let judged = |text: &str, keys: &[Key]| judge(text.as_bytes(), Some(&sign(text)), keys, image);
        let good = document(image, TYPE);
        assert_eq!(judged(&good, &[other.clone(), key.clone()]), Ok(()));
        let wrong = |text: &str, keys: &[Key]| judged(text, keys).unwrap_err();
        assert_eq!(wrong(&good, &[other]), "it is not by a key of the policy");
        let keys = [key];
        assert!(wrong(&document(another, TYPE), &keys).contains(&another.to_string()));
        assert!(wrong(&document(image, "letter"), &keys).contains("\"letter\""));
        assert!(wrong("{}", &keys).contains("malformed"));
        assert!(judge(good.as_bytes(), None, &keys, image).is_err());
        assert!(judge(good.as_bytes(), Some("!"), &keys, image).is_err());
        assert!(judge(document(another, TYPE).as_bytes(), Some(&sign(&good)), &keys, image).is_err());
    }
}
