//! Where an image can be pulled from: the mirrors of its registry, then the registry itself.

use berth_config::registry_spelling;

use super::error::RegistryError;
use super::settings::Settings;
use super::url::Url;
use crate::reference::Reference;

/// A repository and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The registry's name in the settings, in its one spelling.
    pub registry: String,
    /// Where it is.
    pub base: Url,
    /// The repository's path on it.
    pub repository: String,
}

/// In the order in which they are asked.
pub fn of(reference: &Reference, settings: &Settings) -> Result<Vec<Endpoint>, RegistryError> {
    let registry = reference.registry();
    let mirrors = settings.entry(registry).map(|entry| entry.mirrors.as_slice()).unwrap_or_default();
    let mut endpoints = Vec::with_capacity(mirrors.len() + 1);
    for mirror in mirrors {
        let (name, repository) = match mirror.as_str().split_once('/') {
            Some((name, path)) => (name, format!("{path}/{}", reference.path())),
            None => (mirror.as_str(), reference.path().to_owned()),
        };
        endpoints.push(endpoint(name, repository, settings)?);
    }
    endpoints.push(endpoint(registry, reference.path().to_owned(), settings)?);
    Ok(endpoints)
}

/// A repository on a registry itself.
pub fn endpoint(name: &str, repository: String, settings: &Settings) -> Result<Endpoint, RegistryError> {
    let https = !settings.entry(name).is_some_and(|entry| entry.plain_http);
    let registry = registry_spelling(name);
    // Docker Hub's name is not where its registry is.
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { name };
    let base = Url::of_registry(host, https).map_err(|source| RegistryError::Url { to: name.to_owned(), source })?;
    Ok(Endpoint { registry, base, repository })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_before_the_registry() {
        let text = "[registries.'docker.io']\nmirrors = ['m:5000', 'harbor.example/hub']\n[registries.'m:5000']\n\
            plain_http = true";
        let configuration: berth_config::Configuration = toml::from_str(text).unwrap();
        let registries =
            berth_control::message::Registries { registries: configuration.registries, ..Default::default() };
        let settings = Settings::new(registries, "/nonexistent".as_ref());
        let endpoints = of(&"nginx:1".parse().unwrap(), &settings).unwrap();
        let shown: Vec<String> =
            endpoints.iter().map(|endpoint| format!("{} {}", endpoint.base, endpoint.repository)).collect();
        let hub = "https://registry-1.docker.io/ library/nginx";
        assert_eq!(shown, ["http://m:5000/ library/nginx", "https://harbor.example/ hub/library/nginx", hub]);
        assert_eq!(endpoints[2].registry, "docker.io");
    }
}
