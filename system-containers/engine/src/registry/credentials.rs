//! Docker's config.json: who pulls from where.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
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

/// The credentials by registry. An entry that cannot be understood is left out, with a word about it in the second
/// value.
pub fn read(text: &[u8]) -> Result<(BTreeMap<String, Credentials>, Vec<String>), serde_json::Error> {
    let file: File = serde_json::from_slice(text)?;
    let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
    for (key, entry) in file.auths {
        match credentials(entry) {
            Some(credentials) => drop(found.insert(registry(&key), credentials)),
            None => problems.push(format!("the entry {key:?} has no credentials (helpers are not run)")),
        }
    }
    Ok((found, problems))
}

/// Docker writes Docker Hub as `https://index.docker.io/v1/`, and older versions others like that.
fn registry(key: &str) -> String {
    let name = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match name.split('/').next().unwrap_or(name) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        name => name.to_owned(),
    }
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
}
