//! Where a request goes: the part of RFC 3986 that registries use.

use std::fmt;

use hyper::Uri;

/// Not a URL that a registry may lead to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a URL with http or https")]
pub struct UrlError {
    text: String,
}

/// An absolute URL of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether with TLS.
    pub https: bool,
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port, also if it is the usual one.
    pub port: u16,
    /// From the first slash on, with the query.
    pub path: String,
}

impl Url {
    /// Of a registry's name as it stands in references.
    pub fn of_registry(name: &str, https: bool) -> Result<Self, UrlError> {
        Self::parse(&format!("{}://{name}/", if https { "https" } else { "http" }))
    }

    /// Reads an absolute URL. One with a user name is refused: nobody asked for those credentials to be used.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refused = || UrlError { text: text.chars().take(200).collect() };
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refused()),
        };
        let authority = uri.authority().ok_or_else(refused)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(refused());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { https, host, port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }), path })
    }

    /// Follows a `Location` header.
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
        let scheme = if self.https { "https" } else { "http" };
        if location.contains("://") && location.split("://").next().is_some_and(|scheme| !scheme.contains(['/', '?'])) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{scheme}://{}{location}", self.authority()));
        }
        let path = self.path.split('?').next().unwrap_or("/");
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        Self::parse(&format!("{scheme}://{}{directory}/{location}", self.authority()))
    }

    /// Another path there.
    pub fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// `host[:port]`, without a port that goes without saying.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether both lead to the same server.
    pub fn same_server(&self, other: &Self) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }
}

/// Without the query, which may hold a secret.
impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or("/");
        write!(formatter, "{}://{}{path}", if self.https { "https" } else { "http" }, self.authority())
    }
}

/// Text as a value in a query.
pub fn encode(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The reverse of percent-encoding. What is not encoded, or is no text then, stays as it is.
pub fn decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if let (b'%', Some(high), Some(low)) = (first, digit(behind.first()), digit(behind.get(1))) {
            // Two digits are a byte.
            decoded.push((high << 4 | low) as u8);
            rest = &behind[2..];
        } else {
            decoded.push(*first);
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed_from_where_one_stands() {
        let from = Url::parse("https://a.example:5000/v2/x/blobs/y?z=1").unwrap();
        for (location, wanted) in [
            ("https://cdn.example/k", "https://cdn.example/k"),
            ("//cdn.example:443/k", "https://cdn.example/k"),
            ("/k", "https://a.example:5000/k"),
            ("k", "https://a.example:5000/v2/x/blobs/k"),
            ("/k?next=http://b/", "https://a.example:5000/k"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), wanted);
        }
        assert_eq!(from.join("/k?q=1").unwrap().path, "/k?q=1");
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        for text in ["ftp://a/", "file:///etc/passwd", "https://user:secret@a/", "https:///x", "a/b", ""] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_both_kinds_have_their_form() {
        let url = Url::of_registry("[::1]:5000", false).unwrap();
        assert_eq!((url.host.as_str(), url.port, url.authority()), ("::1", 5000, "[::1]:5000".to_owned()));
        assert_eq!(Url::of_registry("ghcr.io", true).unwrap().authority(), "ghcr.io");
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for (encoded, plain) in
            [("a%20b%26%C3%A4", "a b&ä"), ("%", "%"), ("%2", "%2"), ("%zz%2B", "%zz+"), ("%ff", "%ff")]
        {
            assert_eq!(decode(encoded), plain);
        }
        assert_eq!(decode(&encode("ä %?")), "ä %?");
    }

    #[test]
    fn values_are_encoded_for_queries() {
        assert_eq!(encode("repository:a/b:pull"), "repository:a/b:pull");
        assert_eq!(encode("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
