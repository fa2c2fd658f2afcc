//! TLS to a registry: rustls with ring, Mozilla's roots and the configuration's.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::RegistryError;
use super::settings::Settings;
use super::url::Url;

/// How TLS is spoken, by the registry whose authorities count and whether it is that one itself. Sessions are kept with it,
/// so that further connections begin with less.
pub type Known = Arc<Mutex<BTreeMap<(String, bool), Arc<ClientConfig>>>>;

/// How TLS is spoken with a registry. `trusted` is the registry whose authorities count; only to that one itself is
/// the machine's own certificate shown.
pub fn configuration(settings: &Settings, trusted: &str, is_itself: bool) -> Result<Arc<ClientConfig>, RegistryError> {
    let key = (trusted.to_owned(), is_itself);
    let mut known = settings.tls().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(configuration) = known.get(&key) {
        return Ok(Arc::clone(configuration));
    }
    let configuration = Arc::new(made(settings, trusted, is_itself)?);
    known.insert(key, Arc::clone(&configuration));
    Ok(configuration)
}

fn made(settings: &Settings, trusted: &str, is_itself: bool) -> Result<ClientConfig, RegistryError> {
    let wrong = |error: rustls::Error| RegistryError::File {
        path: format!("the certificates for {trusted}"),
        reason: error.to_string(),
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = builder.with_root_certificates(settings.authorities(trusted)?);
    let identity = if is_itself { settings.identity(trusted)? } else { None };
    let mut configuration = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key).map_err(wrong)?,
        None => builder.with_no_client_auth(),
    };
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// Begins TLS on a connection.
pub async fn begin(
    stream: TcpStream,
    url: &Url,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, RegistryError> {
    let failed = |source| RegistryError::Tls { to: url.authority(), source };
    let name = ServerName::try_from(url.host.clone())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    TlsConnector::from(tls).connect(name, stream).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::Registries;

    #[test]
    fn how_tls_is_spoken_stays_the_same_while_the_settings_do() {
        let user_data = tempfile::tempdir().unwrap();
        let settings = || Settings::new(Registries::default(), user_data.path());
        let of = |settings: &Settings, itself| configuration(settings, "a.example", itself).unwrap();
        let first = settings();
        assert!(Arc::ptr_eq(&of(&first, true), &of(&first, true)));
        assert!(!Arc::ptr_eq(&of(&first, true), &of(&first, false)), "only one of them shows a certificate");
        assert!(!Arc::ptr_eq(&of(&first, true), &of(&settings(), true)), "files may have changed since");
    }
}
