//! `trust` and `registries`: keys, where they are needed and only there, and one entry for what is the same.

use std::collections::BTreeMap;

use crate::configuration::Configuration;
use crate::load::Report;
use crate::spelling::registry_spelling;
use crate::tree::{Node, Path};
use crate::trust::Requirement;

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    let scopes = configuration.trust.keys().map(|scope| (scope.as_str(), scope.spelling()));
    one_spelling_each("trust", scopes, root, report);
    let registries = configuration.registries.keys().map(|name| (name.as_str(), registry_spelling(name.as_str())));
    one_spelling_each("registries", registries, root, report);
    keys(configuration, root, report);
}

/// Two entries for the same would leave open which one counts.
fn one_spelling_each<'a>(
    table: &str,
    names: impl Iterator<Item = (&'a str, String)>,
    root: &Node,
    report: &mut Report,
) {
    let mut seen = BTreeMap::new();
    for (name, spelling) in names {
        if let Some(before) = seen.insert(spelling, name) {
            let path = Path::default().key(table).key(name);
            let message = format!("\"{name}\" and \"{before}\" are the same");
            report.add(report.about(root, &path, message).help("leave one of the two out"));
        }
    }
}

fn keys(configuration: &Configuration, root: &Node, report: &mut Report) {
    for (scope, trust) in &configuration.trust {
        let path = Path::default().key("trust").key(scope.as_str());
        match (trust.require, trust.keys.is_empty()) {
            (Requirement::Signature, true) => {
                let message = "no key is named that could have signed".to_owned();
                let help = "name the signers' public keys, `keys = [\"keys/acme.pub\"]`";
                report.add(report.about(root, &path, message).help(help));
            }
            (Requirement::Signature, false) | (_, true) => {}
            (other, false) => {
                let message = format!("the keys are not used with `require = \"{}\"`", other.name());
                let help = "leave `keys` out, or write `require = \"signature\"`";
                report.add(report.about(root, &path.key("keys"), message).help(help));
            }
        }
    }
}
