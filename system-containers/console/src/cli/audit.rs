//! `berth audit`: what the configuration in force and the containers made beside it let through, and which images are taken.

use berth_config::{Audit, Loosening, Policy};

use super::api::Api;
use super::error::Error;
use super::{json_text, table};

/// As two tables, or as JSON.
pub async fn run(api: &Api, json: bool) -> Result<String, Error> {
    let text = api.machine.audit().await?;
    let audit: Audit = serde_json::from_str(&text)
        .map_err(|error| Error::Refused(format!("this `berth` does not understand the machine's audit: {error}")))?;
    if json { json_text(&audit) } else { Ok(show(&audit, table::terminal_width())) }
}

fn show(audit: &Audit, width: Option<usize>) -> String {
    let policy = |policy: &Policy| {
        let require = match policy.require.as_str() {
            "signature" => format!("a signature by {}", policy.keys.join(" or ")),
            "digest" => "a digest".to_owned(),
            _ => "nothing".to_owned(),
        };
        vec![policy.scope.clone(), require]
    };
    let rows: Vec<Vec<String>> = audit.images.iter().map(policy).collect();
    let images = table::render(&["IMAGES OF", "NEED"], &rows, width);
    if audit.loosenings.is_empty() {
        return format!("{images}\nNothing is loosened.\n");
    }
    let row = |found: &Loosening| {
        let key = if found.made { format!("{} (made by hand)", found.key) } else { found.key.clone() };
        vec![key, found.value.clone(), found.meaning.clone()]
    };
    let rows: Vec<Vec<String>> = audit.loosenings.iter().map(row).collect();
    format!("{images}\n{}", table::render(&["LOOSENED BY", "VALUE", "SO THAT"], &rows, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        show(&toml::from_str::<berth_config::Configuration>(text).unwrap().audit([]), None)
    }

    #[test]
    fn a_tight_machine_says_so() {
        assert_eq!(shown(""), "IMAGES OF  NEED\n*          nothing\n\nNothing is loosened.\n");
    }

    #[test]
    fn what_no_configuration_declares_is_marked() {
        let job = toml::from_str::<berth_config::Container>("image = 'x'\nnetwork_mode = 'host'\n").unwrap();
        let audit = berth_config::Configuration::default().audit([("job", &job)]);
        let text = show(&audit, None);
        assert!(
            text.contains("containers.job.network_mode (made by hand)  host   it has the machine's network"),
            "{text}"
        );
    }

    #[test]
    fn policies_and_loosenings_are_told() {
        let text = shown(
            "[trust.'*']\nrequire = 'digest'\n[trust.'ghcr.io']\nrequire = 'signature'\nkeys = ['a.pub', 'b.pub']\n\
             [containers.web]\nimage = 'nginx'\nnetwork_mode = 'host'\n",
        );
        assert!(text.contains("ghcr.io    a signature by a.pub or b.pub\n"), "{text}");
        assert!(text.contains("containers.web.network_mode  host   it has the machine's network"), "{text}");
    }
}
