//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants to see.

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from somewhere else (distribution's token authentication specification).
    Bearer {
        /// Who gives it.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
        /// Why the last one was not taken.
        error: Option<String>,
    },
}

impl Challenge {
    /// The same for who also writes to this repository: what is asked for others stays (distribution's token scope
    /// documentation: `type:name:actions`, parted by spaces).
    #[must_use]
    pub fn to_write(self, repository: &str) -> Self {
        let Self::Bearer { realm, service, scope, error } = self else { return self };
        let prefix = format!("repository:{repository}:");
        let wanted = format!("{prefix}pull,push");
        let scope = scope.unwrap_or_default();
        let others = scope.split_whitespace().filter(|one| one.strip_prefix(&prefix) != Some("pull"));
        // Who names more than that for this repository knows what it wants.
        let is_there = others.clone().any(|one| one.starts_with(&prefix));
        let own = (!is_there).then_some(wanted.as_str());
        let scope = own.into_iter().chain(others).collect::<Vec<_>>().join(" ");
        Self::Bearer { realm, service, scope: Some(scope), error }
    }
}

/// The challenge to answer: a token's before a password's. None if there is none that is understood.
pub fn read(headers: &HeaderMap) -> Option<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = lines.flat_map(parse).collect();
    let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(challenges.first()).cloned()
}

/// All challenges of one header line.
fn parse(line: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            let (value, after) = read_value(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else if !word.is_empty() {
            found.push((word.to_ascii_lowercase(), Vec::new()));
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
            error: value("error"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: own(service), scope: own(scope), error: None }
    }

    #[test]
    fn the_challenges_of_known_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let scope = Some("repository:a/b:pull,push");
        assert_eq!(parse(hub), [bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)]);
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(parse("BASIC"), [Challenge::Basic]);
        assert_eq!(parse("bearer realm=https://a/t , Service=x"), [bearer("https://a/t", Some("x"), None)]);
    }

    #[test]
    fn several_challenges_share_a_line() {
        let line = r#"Negotiate abc==, Basic realm="a, \"b\"", Bearer realm="https://c/t""#;
        assert_eq!(parse(line), [Challenge::Basic, bearer("https://c/t", None, None)]);
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, line.parse().unwrap());
        assert_eq!(read(&headers), Some(bearer("https://c/t", None, None)));
    }

    #[test]
    fn who_writes_asks_for_that_from_the_beginning() {
        let scope = |scope: Option<&str>| match bearer("https://c/t", None, scope).to_write("a/b") {
            Challenge::Bearer { scope, .. } => scope.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(scope(None), "repository:a/b:pull,push");
        assert_eq!(scope(Some("repository:a/b:pull")), "repository:a/b:pull,push");
        assert_eq!(scope(Some("repository:a/b:pull,push")), "repository:a/b:pull,push");
        assert_eq!(scope(Some("repository:a/b:*")), "repository:a/b:*");
        assert_eq!(scope(Some("repository:a:pull repository:a/b:pull")), "repository:a/b:pull,push repository:a:pull");
        assert_eq!(Challenge::Basic.to_write("a/b"), Challenge::Basic);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for line in ["", ",,,", "=", "Bearer", "Bearer realm", "Digest realm=\"x\"", "Basic\"", "a=\"\\"] {
            let challenges = parse(line);
            assert!(challenges.is_empty() || challenges == [Challenge::Basic], "{line}: {challenges:?}");
        }
    }
}
