//! cosign's signatures since its version 3: a Sigstore bundle beside the image. In it is an envelope (DSSE) with a statement
//! (in-toto) whose subject is the image. Certificates and entries of logs that a bundle may have are not asked.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::key::Key;
use crate::digest::Digest;
use crate::oci::{Descriptor, PREDICATE};

/// What it is called, as a layer and among the referrers (cosign's BUNDLE_SPEC).
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The statement that cosign makes for `sign`; others tell of the image, and take it for nothing.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

/// Whether a referrer may be a signature. Not all registries tell.
pub fn may_sign(referrer: &Descriptor) -> bool {
    referrer.annotation(PREDICATE).is_none_or(|kind| kind == SIGNED)
}

/// Whether a bundle is a signature of an image by one of these keys. The error says what is wrong with it.
pub fn judge(document: &[u8], keys: &[Key], image: Digest) -> Result<(), String> {
    let malformed = |error| format!("it is malformed: {error}");
    let bundle: Bundle = serde_json::from_slice(document).map_err(malformed)?;
    let envelope = bundle.dsse_envelope.ok_or("it has no envelope")?;
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| "its payload is not base64")?;
    // Before a word of it is believed.
    let signed = encoded(&envelope.payload_type, &payload);
    let is_good = |signature: &[u8]| keys.iter().any(|key| key.has_signed(&signed, signature));
    if !envelope.signatures.iter().any(|one| STANDARD.decode(&one.sig).is_ok_and(|signature| is_good(&signature))) {
        return Err("it is not by a key of the policy".to_owned());
    }
    if envelope.payload_type != STATEMENT {
        return Err(format!("it signs a {:?}", envelope.payload_type));
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(malformed)?;
    if statement.predicate_type != SIGNED {
        return Err(format!("it signs a {:?}", statement.predicate_type));
    }
    let digests: Vec<&str> =
        statement.subject.iter().filter_map(|subject| subject.digest.get("sha256")).map(String::as_str).collect();
    if digests.contains(&&*image.hex()) { Ok(()) } else { Err(format!("it is a signature of {digests:?}")) }
}

/// What is signed of an envelope (DSSE, "Pre-Authentication Encoding").
fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::super::signature::tests::signer;
    use super::*;

    #[test]
    fn only_a_signature_of_this_image_by_a_key_of_the_policy_is_good() {
        let (pair, key) = signer();
        let (_, other) = signer();
        let (image, another) = (Digest::of(b"image"), Digest::of(b"another"));
        let statement = |digest: Digest, kind: &str| {
            let subject = format!(r#"[{{"name":"x","digest":{{"sha256":"{}"}}}}]"#, digest.hex());
            format!(r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subject},"predicateType":"{kind}"}}"#)
        };
        let bundle = |kind: &str, signed: &str, shown: &str| {
            let signature = pair.sign(&SystemRandom::new(), &encoded(kind, signed.as_bytes())).unwrap();
            let (payload, sig) = (STANDARD.encode(shown), STANDARD.encode(signature.as_ref()));
            format!(
                r#"{{"mediaType":"{MEDIA_TYPE}","verificationMaterial":{{"publicKey":{{"hint":"x"}}}},
                    "dsseEnvelope":{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"sig":"{sig}"}}]}}}}"#
            )
        };
        let judged = |text: &str, keys: &[Key]| judge(bundle(STATEMENT, text, text).as_bytes(), keys, image);
        let good = statement(image, SIGNED);
        assert_eq!(judged(&good, &[other.clone(), key.clone()]), Ok(()));
        assert_eq!(judged(&good, &[other]).unwrap_err(), "it is not by a key of the policy");
        let keys = [key];
        let wrong = |text: &str| judged(text, &keys).unwrap_err();
        assert!(wrong(&statement(another, SIGNED)).contains(&another.hex()));
        assert!(wrong(&statement(image, "https://slsa.dev/provenance/v1")).contains("slsa.dev"));
        assert!(wrong("{}").contains("malformed"));
        let refused = |bundle: &str| judge(bundle.as_bytes(), &keys, image).is_err();
        assert!(refused(&bundle(STATEMENT, &statement(another, SIGNED), &good)), "what was signed was exchanged");
        assert!(refused(&bundle("text/plain", &good, &good)));
        assert!(refused("{}") && refused("no document"));
    }

    #[test]
    fn what_is_signed_is_what_the_specification_shows() {
        let example = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(encoded("http://example.com/HelloWorld", b"hello world"), example);
    }
}
