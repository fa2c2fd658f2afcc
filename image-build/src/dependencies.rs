//! Checks the crates that are linked against deny.toml: their licences, doubled versions, and where they come from.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{output, step, tool};
use crate::workspace::Workspace;

/// What Cargo.lock calls the public registry; anything else is a source nobody agreed to.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    #[serde(default)]
    skip: Vec<Skip>,
}

#[derive(Debug, Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    package: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Checks every crate of the workspace's graph.
///
/// # Errors
/// If deny.toml or cargo's answer cannot be read, or crates break the policy: all of them are named.
pub fn check(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let policy: Policy = toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
    let mut cargo = tool("cargo");
    cargo.current_dir(&workspace.root).args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
    let answer = output(cargo.arg("x86_64-unknown-linux-musl"))?;
    let metadata: Metadata = serde_json::from_str(&answer).context("parse what cargo metadata says")?;
    let found = offences(&policy, &metadata.packages);
    if !found.is_empty() {
        bail!("deny.toml does not allow:\n  {}", found.join("\n  "));
    }
    step(&format!("{} crates: licences, versions and sources are as deny.toml allows", metadata.packages.len()));
    Ok(())
}

fn offences(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, license, source } = package;
        match license.as_deref() {
            Some(expression) if is_allowed(expression, &policy.licenses.allow) => {}
            Some(expression) => found.push(format!("{name} {version}: licence {expression}")),
            None => found.push(format!("{name} {version}: no licence is named")),
        }
        if source.as_deref().is_some_and(|source| source != REGISTRY) {
            found.push(format!("{name} {version}: comes from {}", source.as_deref().unwrap_or_default()));
        }
        if !policy.bans.skip.iter().any(|skip| is_skipped(&skip.package, name, version)) {
            versions.entry(name).or_default().push(version);
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        found.push(format!("{name}: linked in versions {}", versions.join(" and ")));
    }
    found
}

/// `name@version`, where the version may be a leading part such as `1` or `0.9`.
fn is_skipped(skip: &str, name: &str, version: &str) -> bool {
    let Some((skipped, part)) = skip.split_once('@') else { return skip == name };
    skipped == name && version.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// SPDX expressions as crates write them: alternatives (OR, or the old slash) of conjunctions; an exception widens a
/// licence, so the licence alone decides.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    // `(A OR B) AND C`: each factor must be allowed, and a factor is if one of its alternatives is.
    if expression.contains('(') {
        let factors = expression.split(['(', ')']);
        return factors
            .map(|factor| factor.trim().trim_start_matches("AND ").trim_end_matches(" AND").trim())
            .filter(|factor| !factor.is_empty() && *factor != "AND")
            .all(|factor| is_allowed(factor, allowed));
    }
    expression.split(" OR ").any(|term| {
        term.split(" AND ").all(|name| {
            let name = name.split(" WITH ").next().unwrap_or_default().trim();
            allowed.iter().any(|allowed| allowed == name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        toml::from_str("[licenses]\nallow = ['MIT', 'Zlib']\n[bans]\nskip = [{ crate = 'old@1', reason = 'x' }]")
            .unwrap()
    }

    fn package(name: &str, version: &str, license: &str) -> Package {
        let (name, version, license) = (name.to_owned(), version.to_owned(), license.to_owned());
        Package { name, version, license: Some(license), source: Some(REGISTRY.to_owned()) }
    }

    #[test]
    fn one_allowed_alternative_is_enough_and_every_factor_is_needed() {
        let allowed = policy().licenses.allow;
        for good in ["MIT", "Apache-2.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Zlib", "MIT WITH x"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", ""] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_second_version_is_an_offence_unless_it_is_skipped() {
        let twice = [package("a", "1.0.0", "MIT"), package("a", "2.0.0", "MIT")];
        assert_eq!(offences(&policy(), &twice), ["a: linked in versions 1.0.0 and 2.0.0"]);
        let skipped = [package("old", "1.3.0", "MIT"), package("old", "2.0.0", "MIT")];
        assert!(offences(&policy(), &skipped).is_empty());
    }

    #[test]
    fn a_git_source_is_an_offence() {
        let mut fetched = package("a", "1.0.0", "MIT");
        fetched.source = Some("git+https://example.org/a".to_owned());
        assert_eq!(offences(&policy(), &[fetched]).len(), 1);
    }
}
