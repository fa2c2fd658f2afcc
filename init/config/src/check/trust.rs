//! `trust`: keys, where they are needed and only there.

use crate::configuration::Configuration;
use crate::load::Report;
use crate::tree::{Node, Path};
use crate::trust::Requirement;

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
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
