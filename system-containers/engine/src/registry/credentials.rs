//! Docker's config.json: who pulls from where. As with podman (containers-auth.json(5)) an entry may be for a part of a
//! registry, `quay.io/org`, or for one repository; the longest that fits counts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_config::registry_spelling;
use serde::Deserialize;

/// Who pulls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// An OAuth2 refresh token, used instead of a password.
    pub identity_token: Option<String>,
}

impl Credentials {
    /// For an error's text.
    pub fn who(&self) -> String {
        if self.username.is_empty() { "the identity token".to_owned() } else { format!("user {:?}", self.username) }
    }

    /// The value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    /// A program that keeps the credentials of all registries elsewhere.
    #[serde(default)]
    creds_store: Option<String>,
    /// The same of these.
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

/// The credentials by registry, or a part of one. An entry that cannot be understood is left out, with a word about it in
/// the second value.
pub fn read(text: &[u8]) -> Result<(BTreeMap<String, Credentials>, Vec<String>), serde_json::Error> {
    let file: File = serde_json::from_slice(text)?;
    let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
    let auths = file.auths.unwrap_or_default();
    let mut elsewhere: Vec<String> = file.cred_helpers.unwrap_or_default().into_keys().collect();
    elsewhere.retain(|key| !auths.contains_key(key));
    // Where there are entries, each that has no credentials is told.
    if auths.is_empty() && file.creds_store.is_some_and(|store| !store.is_empty()) {
        elsewhere.insert(0, "all registries".to_owned());
    }
    if !elsewhere.is_empty() {
        problems.push(format!(
            "the credentials for {} are kept by a program (credsStore, credHelpers), which is not run here: give them in \
             `auths`, in the configuration or by `berth login`",
            elsewhere.join(", ")
        ));
    }
    for (key, entry) in auths {
        match credentials(entry) {
            Some(credentials) => drop(found.insert(scope(&key), credentials)),
            None => problems.push(format!("the entry {key:?} has no credentials (helpers are not run)")),
        }
    }
    Ok((found, problems))
}

/// Docker writes Docker Hub as `https://index.docker.io/v1/`, and older versions others like that: a path behind a scheme is
/// no part of the registry.
fn scope(key: &str) -> String {
    let address = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match address.unwrap_or(key).trim_end_matches('/').split_once('/') {
        Some((host, path)) if address.is_none() && !matches!(path, "v1" | "v2") => (host, Some(path)),
        Some((host, _)) => (host, None),
        None => (address.unwrap_or(key).trim_end_matches('/'), None),
    };
    let host = registry_spelling(host);
    match path {
        Some(path) => format!("{host}/{path}"),
        None => host,
    }
}

/// The credentials for a repository of a registry: those of the longest scope that it is in.
pub fn of<'a>(known: &'a BTreeMap<String, Credentials>, registry: &str, repository: &str) -> Option<&'a Credentials> {
    let name = format!("{}/{repository}", registry_spelling(registry));
    let mut scope = name.as_str();
    loop {
        if let Some(credentials) = known.get(scope) {
            return Some(credentials);
        }
        scope = scope.rsplit_once('/')?.0;
    }
}

/// These go before those for a registry that are known, and for all parts of it.
pub fn replace(known: &mut BTreeMap<String, Credentials>, registry: &str, credentials: Credentials) {
    let registry = registry_spelling(registry);
    known.retain(|scope, _| scope.strip_prefix(&registry).is_none_or(|rest| !rest.starts_with('/')));
    known.insert(registry, credentials);
}

fn credentials(entry: Entry) -> Option<Credentials> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username, entry.password)
    } else {
        let decoded = String::from_utf8(STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        // Docker pads with zeros.
        (username.to_owned(), password.trim_end_matches('\0').to_owned())
    };
    let identity_token = Some(entry.identitytoken).filter(|token| !token.is_empty());
    if username.is_empty() && identity_token.is_none() {
        return None;
    }
    Some(Credentials { username, password, identity_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_file_is_read() {
        let text = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6YTpiAA=="},
            "ghcr.io": {"username": "u", "password": "p"},
            "a.example:5000": {"auth": "PHRva2VuPjo=", "identitytoken": "t"},
            "helper.example": {}, "broken.example": {"auth": "!"}
        }, "credsStore": "desktop"}"#;
        let (found, problems) = read(text).unwrap();
        let plain = |username: &str, password: &str| Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            identity_token: None,
        };
        assert_eq!(found["docker.io"], plain("me", "a:b"));
        assert_eq!(found["ghcr.io"], plain("u", "p"));
        assert_eq!(found["a.example:5000"].identity_token.as_deref(), Some("t"));
        assert_eq!((found.len(), problems.len()), (3, 2));
        assert_eq!(found["docker.io"].basic(), "Basic bWU6YTpi");
    }

    #[test]
    fn credentials_that_a_program_keeps_are_missed_aloud() {
        let problems = |text: &str| {
            let (found, problems) = read(text.as_bytes()).unwrap();
            assert!(found.is_empty());
            problems.join("; ")
        };
        for text in [r#"{"credsStore":"desktop"}"#, r#"{"auths":null,"credsStore":"desktop","credHelpers":{}}"#] {
            assert!(problems(text).starts_with("the credentials for all registries are kept by a program"), "{text}");
        }
        let text = r#"{"credHelpers":{"a.example":"gcloud","b.example":"ecr-login"}}"#;
        assert!(problems(text).starts_with("the credentials for a.example, b.example are kept"));
        let text = r#"{"auths":{"a.example":{}},"credsStore":"desktop","credHelpers":{"a.example":"x"}}"#;
        assert_eq!(problems(text), r#"the entry "a.example" has no credentials (helpers are not run)"#);
        assert_eq!(problems(r#"{"credsStore":"","HttpHeaders":{}}"#), "");
    }

    #[test]
    fn an_entry_for_a_part_of_a_registry_is_for_that_alone() {
        // Each entry's user is its key.
        let keys =
            ["quay.io", "quay.io/org", "quay.io/org/app", "https://b.example/v2/", "c.example/v1/", "d.example/x"];
        let entry = |key: &str| format!(r#""{key}":{{"username":"{key}","password":"p"}}"#);
        let text = format!(r#"{{"auths":{{{}}}}}"#, keys.map(entry).join(","));
        let (mut known, problems) = read(text.as_bytes()).unwrap();
        assert!(problems.is_empty());
        let cases = [
            ("quay.io", "other", Some("quay.io")),
            ("quay.io", "organs/app", Some("quay.io")),
            ("quay.io", "org/more/app", Some("quay.io/org")),
            ("quay.io", "org/app", Some("quay.io/org/app")),
            ("quay.io", "", Some("quay.io")),
            ("b.example", "a", Some("https://b.example/v2/")),
            ("c.example", "a", Some("c.example/v1/")),
            ("d.example", "x/y", Some("d.example/x")),
            ("d.example", "a", None),
            ("d.example", "", None),
        ];
        for (registry, repository, expected) in cases {
            let found = of(&known, registry, repository).map(|found| found.username.as_str());
            assert_eq!(found, expected, "{registry} {repository}");
        }
        replace(&mut known, "quay.io", Credentials { username: "me".to_owned(), ..Credentials::default() });
        assert_eq!(of(&known, "quay.io", "org/app").unwrap().username, "me");
        assert_eq!(of(&known, "d.example", "x").unwrap().username, "d.example/x");
    }
}
