//! One spelling for registries that are the same server, so that what is said of one counts for all its names.
//!
//! It is for comparing alone: what people wrote is what is shown and asked. `Registry/tool` would be a path on Docker Hub
//! in small letters.

use std::net::Ipv6Addr;

/// Docker Hub, as it stands in images' names.
const HUB: &str = "docker.io";
/// Its servers, which answer under these names too.
const HUB_SERVERS: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// Where Docker Hub has images whose names have one component.
const OFFICIAL: &str = "library";
/// The port that goes without saying.
const USUAL_PORT: u16 = 443;

/// A registry's name as every other name of it is spelt too: in small letters, without the usual port, Docker Hub as
/// `docker.io`.
pub fn registry_spelling(name: &str) -> String {
    let small = name.to_ascii_lowercase();
    let (host, port) = match small.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (small.as_str(), None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
    let host = match address {
        Some(address) => format!("[{address}]"),
        None if HUB_SERVERS.contains(&host) => HUB.to_owned(),
        None => host.to_owned(),
    };
    match port.map(|port| port.parse::<u16>().map_err(|_| port)) {
        None | Some(Ok(USUAL_PORT)) => host,
        Some(Ok(port)) => format!("{host}:{port}"),
        // No port, so no registry either.
        Some(Err(text)) => format!("{host}:{text}"),
    }
}

/// The same for a registry or a part of one, as it is written.
pub(crate) fn place_spelling(place: &str) -> String {
    match place.split_once('/') {
        Some((registry, path)) => format!("{}/{path}", registry_spelling(registry)),
        None => registry_spelling(place),
    }
}

/// The image that a place on Docker Hub with one component is, if it is one: `docker.io/nginx` are the images of a user
/// `nginx`, and `docker.io/library/nginx` too.
pub(crate) fn official(place: &str) -> Option<String> {
    let path = place.strip_prefix(HUB)?.strip_prefix('/')?;
    (path != OFFICIAL && !path.contains('/')).then(|| format!("{HUB}/{OFFICIAL}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_server_have_one_spelling() {
        for (name, spelling) in [
            ("ghcr.io", "ghcr.io"),
            ("GHCR.io", "ghcr.io"),
            ("ghcr.io:443", "ghcr.io"),
            ("ghcr.io:0443", "ghcr.io"),
            ("ghcr.io:5000", "ghcr.io:5000"),
            ("ghcr.io:80", "ghcr.io:80"),
            ("Index.docker.io", "docker.io"),
            ("registry-1.docker.io:443", "docker.io"),
            ("registry.hub.docker.com", "docker.io"),
            ("hub.example", "hub.example"),
            ("[0:0::1]:443", "[::1]"),
            ("[::1]:05000", "[::1]:5000"),
            ("::1", "::1"),
            ("r:port", "r:port"),
        ] {
            assert_eq!(registry_spelling(name), spelling, "{name}");
            assert_eq!(registry_spelling(spelling), spelling, "{spelling}");
        }
        assert_eq!(place_spelling("GHCR.io:443/acme/web"), "ghcr.io/acme/web");
    }

    #[test]
    fn docker_hubs_own_images_have_a_short_name() {
        assert_eq!(official("docker.io/nginx").as_deref(), Some("docker.io/library/nginx"));
        for place in ["docker.io", "docker.io/library", "docker.io/acme/web", "docker.iox/nginx", "ghcr.io/nginx"] {
            assert_eq!(official(place), None, "{place}");
        }
    }
}
