//! What is known of registries: the configuration's `[registries]` and `[proxy]`, and files of the user-data partition.
//!
//! Files are read anew for every pull, so that a certificate that was exchanged counts at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_config::{DataFile, Proxy, Registry, Trust, TrustScope, registry_spelling};
use berth_control::message::Registries;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::credentials::{self, Credentials};
use super::error::RegistryError;
use super::logins;
use super::tls;
use super::url::{self, Url};
use crate::reference::Reference;
use crate::trust::{Policy, TrustError};

/// Where credentials in Docker's form lie on the user-data partition.
const DOCKER_CONFIG: &str = "docker/config.json";
/// Where the certificates of authorities lie that every registry may be signed by.
const AUTHORITIES: &str = "certs";
/// The largest file that is read, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// Everything about registries at one moment.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By the registry's one spelling.
    entries: BTreeMap<String, Registry>,
    trust: BTreeMap<TrustScope, Trust>,
    proxy: Proxy,
    user_data: PathBuf,
    logins: BTreeMap<String, Credentials>,
    tls: tls::Known,
}

/// Host and port of a proxy, and what it wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// The proxy.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl Settings {
    /// From the configuration; `user_data` is where the user-data partition is mounted.
    pub fn new(registries: Registries, user_data: &Path) -> Self {
        let entries = registries.registries.into_iter().map(|(name, entry)| (registry_spelling(name.as_str()), entry));
        let logins = docker_logins(&user_data.join(DOCKER_CONFIG));
        let Registries { trust, proxy, .. } = registries;
        Self {
            entries: entries.collect(),
            trust,
            proxy,
            user_data: user_data.to_owned(),
            logins,
            tls: tls::Known::default(),
        }
    }

    /// Who is logged in by hand, which goes before Docker's file; what is wrong with that goes to the log.
    #[must_use]
    pub fn with_logins(mut self, path: &Path) -> Self {
        match logins::read(path) {
            Ok(logins) => {
                let known = &mut self.logins;
                logins.into_iter().for_each(|(registry, login)| credentials::replace(known, &registry, login));
            }
            Err(error) => eprintln!("engine: {}: {error}", path.display()),
        }
        self
    }

    /// The same with this one.
    #[must_use]
    pub fn with_login(mut self, registry: &str, login: Credentials) -> Self {
        let entry = self.entries.entry(registry_spelling(registry)).or_default();
        (entry.username, entry.identity_token) = (None, None);
        credentials::replace(&mut self.logins, registry, login);
        self
    }

    /// What the configuration says of a registry.
    pub fn entry(&self, name: &str) -> Option<&Registry> {
        self.entries.get(&registry_spelling(name))
    }

    /// What an image must show.
    pub fn policy(&self, image: &Reference) -> Result<Policy, TrustError> {
        Policy::of(&self.trust, image, |file| read(&self.path(file)))
    }

    /// How TLS is spoken, as far as that is known.
    pub(super) fn tls(&self) -> &tls::Known {
        &self.tls
    }

    /// Who pulls from a repository of a registry.
    pub fn credentials(&self, name: &str, repository: &str) -> Option<Credentials> {
        let configured = self.entry(name).and_then(|entry| {
            let identity_token = entry.identity_token.clone();
            if entry.username.is_none() && identity_token.is_none() {
                return None;
            }
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            Some(Credentials { username: text(&entry.username), password: text(&entry.password), identity_token })
        });
        configured.or_else(|| credentials::of(&self.logins, name, repository).cloned())
    }

    /// What stands between this machine and a server; nothing if that is on this machine.
    pub fn proxy(&self, url: &Url) -> Option<Through> {
        if is_here(&url.host) || self.proxy.exclude.iter().any(|hosts| hosts.covers(&url.host, url.port)) {
            return None;
        }
        let address = if url.https { &self.proxy.https } else { &self.proxy.http };
        let rest = address.as_ref()?.as_str().strip_prefix("http://")?;
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let proxy = Url::parse(&format!("http://{host}")).ok()?;
        let authorization = user.map(|user| {
            let (username, password) = user.split_once(':').unwrap_or((user, ""));
            // Whatever a URL cannot hold is encoded (RFC 3986, section 3.2.1).
            let (username, password) = (url::decode(username), url::decode(password));
            Credentials { username, password, identity_token: None }.basic()
        });
        Some(Through { host: proxy.host, port: proxy.port, authorization })
    }

    /// Who may vouch for a registry.
    pub fn authorities(&self, name: &str) -> Result<RootCertStore, RegistryError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let entries = std::fs::read_dir(self.user_data.join(AUTHORITIES)).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "pem" || ending == "crt") {
                // The folder also has keys and certificates of other kinds: those of none are passed over.
                for certificate in certificates(&path).unwrap_or_default() {
                    // One that is no authority's vouches for nobody.
                    let _ = roots.add(certificate);
                }
            }
        }
        if let Some(file) = self.entry(name).and_then(|entry| entry.ca.as_ref()) {
            let path = self.path(file);
            for certificate in certificates(&path)? {
                roots.add(certificate).map_err(|error| unusable(&path, error))?;
            }
        }
        Ok(roots)
    }

    /// What this machine shows to a registry.
    pub fn identity(&self, name: &str) -> Result<Option<Identity>, RegistryError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let Some(file) = &entry.client_certificate else { return Ok(None) };
        let key_path = self.path(entry.client_key.as_ref().unwrap_or(file));
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|error| unusable(&key_path, error))?;
        Ok(Some(Identity { chain: certificates(&self.path(file))?, key }))
    }

    fn path(&self, file: &DataFile) -> PathBuf {
        self.user_data.join(file.as_str())
    }
}

/// Whether a host is this machine itself, which no proxy can reach: as other programs read `NO_PROXY`.
fn is_here(host: &str) -> bool {
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, and those between it and its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found.map_err(|error| unusable(path, error))? {
        found if found.is_empty() => Err(unusable(path, "it has no certificate in PEM form")),
        found => Ok(found),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    use std::io::Read as _;
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unusable(path, error))?;
    file.take(FILE_BYTES).read_to_end(&mut content).map_err(|error| unusable(path, error))?;
    Ok(content)
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> RegistryError {
    RegistryError::File { path: path.display().to_string(), reason: reason.to_string() }
}

/// The file's credentials, none if there is no such file; what is wrong with it goes to the log.
fn docker_logins(path: &Path) -> BTreeMap<String, Credentials> {
    if !path.exists() {
        return BTreeMap::new();
    }
    let found = read(path)
        .map_err(|error| error.to_string())
        .and_then(|text| credentials::read(&text).map_err(|error| format!("{}: {error}", path.display())));
    match found {
        Ok((logins, problems)) => {
            for problem in problems {
                eprintln!("engine: {}: {problem}", path.display());
            }
            logins
        }
        Err(problem) => {
            eprintln!("engine: {problem}");
            BTreeMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, user_data: &Path) -> Settings {
        let configuration: berth_config::Configuration = toml::from_str(text).unwrap();
        let registries =
            Registries { registries: configuration.registries, proxy: configuration.proxy, ..Registries::default() };
        Settings::new(registries, user_data)
    }

    #[test]
    fn the_configuration_goes_before_dockers_file() {
        let user_data = tempfile::tempdir().unwrap();
        std::fs::create_dir(user_data.path().join("docker")).unwrap();
        let text = r#"{"auths":{"a.example":{"auth":"ZmlsZTpw"},"b.example":{"auth":"ZmlsZTpw"}}}"#;
        std::fs::write(user_data.path().join(DOCKER_CONFIG), text).unwrap();
        let settings = settings("registries.'a.example' = { username = 'toml', password = 'p' }", user_data.path());
        assert_eq!(settings.credentials("a.example", "x").unwrap().username, "toml");
        assert_eq!(settings.credentials("b.example", "x").unwrap().username, "file");
        assert_eq!(settings.credentials("c.example", "x"), None);
    }

    #[test]
    fn an_entry_is_for_every_spelling_of_its_registry() {
        let user_data = tempfile::tempdir().unwrap();
        std::fs::create_dir(user_data.path().join("docker")).unwrap();
        let text = r#"{"auths":{"B.example:443":{"auth":"ZmlsZTpw"}}}"#;
        std::fs::write(user_data.path().join(DOCKER_CONFIG), text).unwrap();
        let text = "registries.'index.docker.io' = { username = 'hub' }\nregistries.'A.example' = { username = 'a' }";
        let settings = settings(text, user_data.path());
        let who = |name: &str| settings.credentials(name, "x").map(|credentials| credentials.username);
        for (name, user) in [
            ("docker.io", "hub"),
            ("registry-1.docker.io", "hub"),
            ("a.example", "a"),
            ("a.example:443", "a"),
            ("b.example", "file"),
            ("B.Example", "file"),
        ] {
            assert_eq!(who(name).as_deref(), Some(user), "{name}");
        }
        assert_eq!(who("a.example:5000"), None);
        let login = Credentials { username: "me".to_owned(), ..Credentials::default() };
        let settings = settings.clone().with_login("A.example:443", login);
        assert_eq!(settings.credentials("a.example", "x").unwrap().username, "me");
    }

    #[test]
    fn what_a_url_cannot_hold_is_decoded_for_the_proxy() {
        let text = "[proxy]\nhttps = 'http://me%40corp:s%3a%25x%@p.example:3128'";
        let settings = settings(text, Path::new("/nonexistent"));
        let proxy = settings.proxy(&Url::parse("https://ghcr.io/").unwrap()).unwrap();
        let plain = Credentials { username: "me@corp".into(), password: "s:%x%".into(), identity_token: None };
        assert_eq!(proxy.authorization, Some(plain.basic()));
    }

    #[test]
    fn no_proxy_is_gone_through_to_this_machine() {
        let text = "[proxy]\nhttp = 'http://p.example'\nhttps = 'http://p.example'";
        let settings = settings(text, Path::new("/nonexistent"));
        let through = |url: &str| settings.proxy(&Url::parse(url).unwrap()).is_some();
        for here in ["localhost:5000", "LocalHost", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::ffff:127.0.0.1]"] {
            assert!(!through(&format!("http://{here}/")) && !through(&format!("https://{here}/")), "{here}");
        }
        assert!(through("http://localhost.example/") && through("https://192.0.2.1/") && through("http://[fe80::1]/"));
    }

    #[test]
    fn a_proxy_is_for_its_scheme_and_not_for_excluded_hosts() {
        let text = "[proxy]\nhttps = 'http://me:secret@p.example:3128'\nexclude = ['example.org', '192.0.2.7']";
        let settings = settings(text, Path::new("/nonexistent"));
        let through = |url: &str| settings.proxy(&Url::parse(url).unwrap());
        let proxy = through("https://ghcr.io/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("p.example", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
        for url in ["http://ghcr.io/", "https://example.org/", "https://a.example.org:5000/", "https://192.0.2.7/"] {
            assert_eq!(through(url), None, "{url}");
        }
        assert!(through("https://notexample.org/").is_some() && through("https://192.0.2.70/").is_some());
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let user_data = tempfile::tempdir().unwrap();
        std::fs::write(user_data.path().join("ca.pem"), "nothing").unwrap();
        let settings =
            settings("registries.a = { ca = 'ca.pem' }\nregistries.b = { ca = 'gone.pem' }", user_data.path());
        assert!(settings.authorities("a").unwrap_err().to_string().contains("ca.pem: it has no certificate"));
        assert!(settings.authorities("b").unwrap_err().to_string().contains("gone.pem: No such file"));
        assert!(settings.authorities("c").is_ok());
    }
}
