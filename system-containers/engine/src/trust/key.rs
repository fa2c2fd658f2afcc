//! Public keys in PEM form: ECDSA on P-256, what `cosign generate-key-pair` and `openssl ecparam -name prime256v1` make, and
//! Ed25519.

use berth_config::{DataFile, PublicKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

use crate::import::describe as explain;
use crate::registry::RegistryError;

/// What a SubjectPublicKeyInfo begins with before the key itself (RFC 5480, RFC 8410): algorithm and length leave nothing to
/// choose, so its beginning is always the same.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_KEY: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// An uncompressed point, and an Edwards point.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// A key of a kind that is understood.
#[derive(Clone, Debug)]
pub struct Key {
    algorithm: &'static dyn VerificationAlgorithm,
    point: Vec<u8>,
}

impl Key {
    /// From the configuration or the file that it names; the error says why not.
    pub fn read(key: &PublicKey, read: impl Fn(&DataFile) -> Result<Vec<u8>, RegistryError>) -> Result<Self, String> {
        match key {
            PublicKey::Text(text) => Self::from_pem(text.as_bytes()),
            PublicKey::File(file) => match read(file) {
                Ok(text) => Self::from_pem(&text),
                Err(RegistryError::File { reason, .. }) => Err(reason),
                Err(error) => Err(explain(&error)),
            },
        }
    }

    /// From PEM.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(|_| "it is no public key in PEM form".to_owned())?;
        let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] =
            [(P256, P256_BYTES, &ECDSA_P256_SHA256_ASN1), (ED25519_KEY, ED25519_BYTES, &ED25519)];
        let found = kinds.into_iter().find_map(|(beginning, length, algorithm)| {
            let point = der.strip_prefix(beginning).filter(|point| point.len() == length)?;
            Some(Self { algorithm, point: point.to_vec() })
        });
        found.ok_or_else(|| "it is neither an ECDSA key on P-256 nor an Ed25519 key".to_owned())
    }

    /// Whether it has signed this text like that.
    pub fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.point).verify(text, signature).is_ok()
    }
}

/// For an error: which key it is.
pub fn describe(key: &PublicKey) -> String {
    match key {
        PublicKey::Text(_) => "the PEM text".to_owned(),
        PublicKey::File(file) => file.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with openssl: a key pair each, and its signature over "text".
    const ED25519_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAVB4Js5N9GFxLUyptCQj/L9BmPcpovZMmDV12X0yYGmY=\n\
        -----END PUBLIC KEY-----\n\
        ";
    const ED25519_SIGNATURE: &str =
        "MdKU3hmwewY+B+UZsAZhc4cOlGYe+kgB31Tf03AGu4Vv3qdxY5dSIO3LO9eus+Tq8ZwIQH6TfQ8+VRsgd4tABw==";
    const P256_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkrefal1Cp0YrblFUsCkOBnPKJFG/\n\
        a/4Gk0i/7cYhqTiupSLn1zcxOr1T99lYdH2yshghhs7Evvz7D4BLU1jYEA==\n\
        -----END PUBLIC KEY-----\n\
        ";
    const P256_SIGNATURE: &str =
        "MEUCIQCCeA2jAgkKzeVK/nh1f+MFzzGZSMpsPhuB4SXg9a4iZAIgXqzNS98Pg4d9xqUbG2CV+VZRC+fSiRpcRgv8BntuBOU=";
    const P384_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEWY+kARCl/E0WLroAgpBTn+Il7tMjtJ8h\n\
        aXt6ZzE6qt+RaFNqLiNV+AO0jlHkPNyqg2I8DvC5aDJHK5dnbgeX/KH46iSIsOlU\n\
        irxsp8dTgFFbGW5u7NNXpHXcdZNj+FRv\n\
        -----END PUBLIC KEY-----\n\
        ";

    fn bytes(base64: &str) -> Vec<u8> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
    }

    #[test]
    fn signatures_of_both_kinds_are_checked() {
        for (pem, signature) in [(ED25519_PEM, ED25519_SIGNATURE), (P256_PEM, P256_SIGNATURE)] {
            let (key, signature) = (Key::from_pem(pem).unwrap(), bytes(signature));
            assert!(key.has_signed(b"text", &signature));
            assert!(!key.has_signed(b"Text", &signature) && !key.has_signed(b"text", &signature[1..]));
        }
        assert!(!Key::from_pem(P256_PEM).unwrap().has_signed(b"text", &bytes(ED25519_SIGNATURE)));
    }

    #[test]
    fn other_keys_are_refused_with_the_reason() {
        assert!(Key::from_pem(P384_PEM).unwrap_err().contains("neither"));
        assert!(Key::from_pem(b"nothing").unwrap_err().contains("PEM"));
    }
}
