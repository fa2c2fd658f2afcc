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

/// Records a configuration. Runs in a task.
pub fn write(path: &Path, configuration: &Configuration) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| {
        let path = path.display();
        format!("it is in force, but gone after the next boot, because {path} cannot be written: {error}")
    };
    let over = fs::read_to_string(LAST_GOOD).unwrap_or_default();
    let applied = Applied { over, configuration: configuration.to_toml().map_err(|error| fail(&error))? };
    let text = serde_json::to_vec(&applied).map_err(|error| fail(&error))?;
    files::replace(path, &text).map_err(|error| fail(&error))
}

/// Puts what was applied in the place of what was read, if that is as it was.
pub(super) fn use_applied(path: &Path, report: &mut Report) {
    let Ok(bytes) = fs::read(path) else { return };
    let shown = path.display();
    let over = report.configuration.as_ref().and_then(|read| read.to_toml().ok()).unwrap_or_default();
    match serde_json::from_slice::<Applied>(&bytes) {
        Ok(applied) if applied.over == over => {
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
