//! Signatures as cosign makes them, by openssl.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_engine::digest::Digest;

use super::{descriptor, skip};

/// A key pair.
pub struct Signer {
    folder: tempfile::TempDir,
    ed25519: bool,
}

/// A signature as a registry keeps it.
pub struct Signature {
    pub config: Vec<u8>,
    pub payload: Vec<u8>,
    pub manifest: Vec<u8>,
}

/// What a bundle is called.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

impl Signer {
    /// None without openssl.
    pub fn new(ed25519: bool) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            skip("openssl is not installed");
            return None;
        }
        let signer = Self { folder: tempfile::tempdir().unwrap(), ed25519 };
        match ed25519 {
            true => signer.openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key"]),
            false => signer.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key"]),
        };
        Some(signer)
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The public key, as PEM.
    pub fn public_key(&self) -> String {
        String::from_utf8(self.openssl(&["pkey", "-in", "key", "-pubout"])).unwrap()
    }

    /// What `cosign sign --key` would push for an image.
    pub fn sign(&self, image: Digest) -> Signature {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"demo"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let signature = self.signature(payload.as_bytes());
        let config = format!(
            r#"{{"architecture":"","os":"","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(payload.as_bytes())
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":{},"annotations":{{"dev.cosignproject.cosign/signature":"{}"}}}}]}}"#,
            descriptor("config.v1+json", config.as_bytes(), ""),
            Digest::of(payload.as_bytes()),
            payload.len(),
            signature
        );
        Signature { config: config.into(), payload: payload.into(), manifest: manifest.into() }
    }

    /// The same of its version 3.
    pub fn bundle(&self, image: Digest) -> Signature {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#,
            image.hex()
        );
        let kind = "application/vnd.in-toto+json";
        let signature =
            self.signature(format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len()).as_bytes());
        let payload = format!(
            r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{"hint":"x"}},"tlogEntries":[]}},"dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{{"sig":"{signature}"}}]}}}}"#,
            STANDARD.encode(&statement)
        );
        let config = "{}";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{BUNDLE}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[{{"mediaType":"{BUNDLE}","digest":"{}","size":{}}}]}}"#,
            Digest::of(config.as_bytes()),
            Digest::of(payload.as_bytes()),
            payload.len()
        );
        Signature { config: config.into(), payload: payload.into(), manifest: manifest.into() }
    }

    /// In base64.
    fn signature(&self, content: &[u8]) -> String {
        std::fs::write(self.folder.path().join("payload"), content).unwrap();
        STANDARD.encode(match self.ed25519 {
            true => self.openssl(&["pkeyutl", "-sign", "-rawin", "-in", "payload", "-inkey", "key"]),
            false => self.openssl(&["dgst", "-sha256", "-sign", "key", "payload"]),
        })
    }
}

/// Where cosign puts the signatures of an image.
pub fn tag(image: Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}
