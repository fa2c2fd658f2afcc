//! A container as a client defines it: what a configuration file would say of it, and no more than that.

use berth_config::{Configuration, Container, Source, Style};
use berth_control::dbus::ApiError;

/// What mistakes are shown to be in.
const SOURCE: &str = "definition";

/// The one container in the text, with its name. Everything is checked as in a configuration file.
pub fn read(text: &str) -> Result<(String, Container), ApiError> {
    let refused = |reason: &str| Err(ApiError::Refused(reason.to_owned()));
    let mut configuration = match berth_config::load_definition(&Source::new(SOURCE, text)) {
        Ok(loaded) => loaded.configuration,
        Err(mistakes) => {
            let mistakes: Vec<String> = mistakes.iter().map(|mistake| mistake.render(Style::Plain)).collect();
            return refused(&mistakes.join("\n"));
        }
    };
    let containers = std::mem::take(&mut configuration.containers);
    let mut containers = containers.into_iter();
    match (containers.next(), containers.next()) {
        _ if configuration != Configuration::default() => {
            refused("a definition is of a container; `berth apply` is for the rest of a configuration")
        }
        (Some((_, container)), None) if container.replicas.is_some() => {
            refused("`replicas` is for containers of the configuration; make as many as you want, each with its name")
        }
        (Some((name, container)), None) => Ok((name.to_string(), container)),
        _ => refused("a definition has exactly one table [containers.<name>]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        match read(text) {
            Err(ApiError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_definition_is_a_table_of_a_configuration() {
        let (name, container) = read("[containers.job]\nimage = \"a:1\"\nrestart = \"no\"\ntty = true\n").unwrap();
        assert_eq!((name.as_str(), container.image.as_str(), container.tty), ("job", "a:1", true));
    }

    #[test]
    fn what_it_names_may_stand_in_the_configuration() {
        let (_, container) =
            read("[containers.job]\nimage = \"a\"\nnetworks = [\"front\"]\nports = [\"80:80\"]\n").unwrap();
        assert_eq!(container.memberships().len(), 1);
        let pod = "[containers.job]\nimage = \"a\"\nnetwork_mode = \"container:db\"\nipc = \"container:db\"\n";
        assert_eq!(read(pod).unwrap().1.targets().count(), 2);
        assert!(reason(&format!("{pod}pid = \"container:web\"\n")).contains("user namespaces of both"));
    }

    #[test]
    fn what_is_more_or_less_is_refused_with_its_reason() {
        let web = "[containers.web]\nimage = \"a\"\n";
        assert!(reason("").contains("exactly one"));
        assert!(reason(&format!("{web}[containers.b]\nimage = \"b\"\n")).contains("exactly one"));
        assert!(reason(&format!("hostname = \"a\"\n{web}")).contains("berth apply"));
        assert!(reason(&format!("{web}replicas = 2\n")).contains("replicas"));
        assert!(reason("[containers.web]\nimag = \"a\"\n").contains("definition:2:1"));
        assert!(reason("[containers.engine]\nimage = \"a\"\n").contains("system container"));
    }
}
