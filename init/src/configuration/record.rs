//! What `berth apply` has put in force, for the next boot.
//!
//! The files on the user data are the other source, and the later change of the two counts: an applied configuration holds
//! as long as the user data says what it said when it was applied.

use std::fs;
use std::path::Path;

use berth_config::{Configuration, Source};
use serde::{Deserialize, Serialize};

use super::{LAST_GOOD, Report, parse};
use crate::files;

/// What is shown as the source of such a configuration.
pub const SOURCE: &str = "berth apply";

/// The file's name in [`super::FOLDER`].
pub const NAME: &str = "applied.json";

#[derive(Serialize, Deserialize)]
struct Applied {
    /// What was read at the boot before, as TOML; empty if that was nothing.
    over: String,
    /// What is in force instead, as TOML.
    configuration: String,
}

/// Records a configuration that is in force over another one: what was read, as TOML, if it is not what is kept. Runs in a
/// task.
pub fn write(path: &Path, over: Option<String>, configuration: &Configuration) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| {
        let path = path.display();
        format!("it is in force, but gone after the next boot, because {path} cannot be written: {error}")
    };
    let over = over.unwrap_or_else(|| fs::read_to_string(LAST_GOOD).unwrap_or_default());
    let applied = Applied { over, configuration: configuration.to_toml().map_err(|error| fail(&error))? };
    let text = serde_json::to_vec(&applied).map_err(|error| fail(&error))?;
    files::replace(path, &text).map_err(|error| fail(&error))
}

/// Puts what was applied in the place of what was read, if that is as it was.
pub(super) fn use_applied(path: &Path, report: &mut Report) {
    let Ok(bytes) = fs::read(path) else { return };
    let shown = path.display();
    match serde_json::from_slice::<Applied>(&bytes) {
        Ok(applied) if is_over(&applied.over, report.configuration.as_ref()) => {
            match parse(vec![Source::new(SOURCE.to_owned(), applied.configuration)]) {
                Ok(applied) => {
                    report.configuration = Some(applied.configuration);
                    report.locations = applied.locations;
                    report.sources = vec![SOURCE.to_owned()];
                    SOURCE.clone_into(&mut report.outcome);
                }
                Err(problems) => report.problems.extend(problems),
            }
        }
        Ok(_) => {
            report.outcome.push_str(", newer than what was applied");
            // One that stays counts again if the user data goes back to what it said.
            if let Err(error) = fs::remove_file(path) {
                report.problems.push(format!("remove {shown}: {error}"));
            }
        }
        Err(error) => report.problems.push(format!("{shown}: {error}; apply the configuration again")),
    }
}

/// Whether what was read is what it was then. Another version may have written the same in other words.
fn is_over(before: &str, read: Option<&Configuration>) -> bool {
    let Some(read) = read else { return before.is_empty() };
    parse(vec![Source::new(SOURCE.to_owned(), before)]).is_ok_and(|before| before.configuration == *read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "[containers.web]\nimage = 'web:1'\nports = ['80:80']\n";

    fn configuration(text: &str) -> Configuration {
        parse(vec![Source::new("test".to_owned(), text)]).unwrap().configuration
    }

    /// What is in force at a boot that reads this, after something else was applied over `before`.
    fn in_force(before: &str, read: Option<&str>) -> (Option<Configuration>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        write(&path, Some(before.to_owned()), &configuration("[containers.applied]\nimage = 'a'\n")).unwrap();
        let mut report = Report { configuration: read.map(configuration), ..Report::default() };
        use_applied(&path, &mut report);
        assert_eq!(report.problems, [""; 0]);
        (report.configuration, path.exists())
    }

    #[test]
    fn what_was_applied_holds_until_something_else_is_read_however_that_is_written() {
        let applied = (Some(configuration("[containers.applied]\nimage = 'a'\n")), true);
        let same =
            "# As an earlier version writes it.\ncontainers = { web = { ports = ['80:80'], image = 'web:1' } }\n";
        for (before, read) in [(WEB, Some(WEB)), (same, Some(WEB)), ("", None)] {
            assert_eq!(in_force(before, read), applied, "{before} {read:?}");
        }
        let other = WEB.replace("web:1", "web:2");
        for before in [WEB, "", "a_key_that_is_gone = 1\n"] {
            assert_eq!(in_force(before, Some(&other)), (Some(configuration(&other)), false), "{before}");
        }
    }
}
