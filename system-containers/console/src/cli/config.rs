//! `berth config`: check files, show what is in force.

use std::io::Write;
use std::path::PathBuf;

use berth_config::{Configuration, Source, Style};
use clap::{Args, Subcommand};

use super::api::Api;
use super::error::Error;
use super::json_text;

/// What about configurations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what is wrong with configuration files; needs no running machine
    Check(Check),
    /// Show the configuration in force
    Show,
}

/// What to check.
#[derive(Debug, Args)]
pub struct Check {
    /// The files, in the order in which they are merged
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints every mistake, or that there is none; fails if there is one.
pub fn check(arguments: &Check, json: bool, output: &mut impl Write) -> Result<(), Error> {
    let read = |path: &PathBuf| {
        let text = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(Source::new(path.display().to_string(), text))
    };
    let sources = arguments.files.iter().map(read).collect::<Result<Vec<Source>, Error>>()?;
    let diagnostics = match berth_config::load(&sources) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics,
    };
    let text = match (json, diagnostics.len()) {
        (true, _) => json_text(&diagnostics)?,
        (false, 0) => "no mistakes\n".to_owned(),
        (false, count) => {
            let rendered: Vec<String> = diagnostics.iter().map(|mistake| mistake.render(Style::Plain)).collect();
            let plural = if count == 1 { "mistake" } else { "mistakes" };
            format!("{}\n{count} {plural}\n", rendered.join("\n"))
        }
    };
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(Error::Output)?;
    if diagnostics.is_empty() { Ok(()) } else { Err(Error::Told) }
}

/// The configuration in force.
pub async fn in_force(api: &Api) -> Result<Configuration, Error> {
    let text = api.machine.configuration().await?;
    // Not by toml::from_str, which would put a second reader of every type into the image.
    let loaded = berth_config::load(&[Source::new("the configuration in force", text)]);
    loaded.map(|loaded| loaded.configuration).map_err(|diagnostics| {
        let mistakes: Vec<String> = diagnostics.iter().map(|mistake| mistake.render(Style::Plain)).collect();
        Error::Refused(format!("this `berth` does not understand the machine's:\n{}", mistakes.join("\n")))
    })
}

/// The configuration in force, as TOML or as the same in JSON.
pub async fn show(api: &Api, json: bool) -> Result<String, Error> {
    let text = api.machine.configuration().await?;
    if !json {
        return Ok(text);
    }
    let value: serde_json::Value = toml::from_str(&text)
        .map_err(|error| Error::Refused(format!("the configuration in force is not TOML: {error}")))?;
    json_text(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, json: bool) -> (Result<(), Error>, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("berth.toml");
        std::fs::write(&path, text).unwrap();
        let mut output = Vec::new();
        let result = check(&Check { files: vec![path] }, json, &mut output);
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_right_configuration_has_no_mistakes() {
        let (result, output) = checked("hostname = \"dock1\"\n", false);
        assert!(result.is_ok());
        assert_eq!(output, "no mistakes\n");
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let (result, output) = checked("\n\nhostnam = \"dock1\"\n", false);
        assert!(matches!(result, Err(Error::Told)));
        assert!(output.contains("berth.toml:3:1") && output.ends_with("1 mistake\n"), "{output}");
    }

    #[test]
    fn mistakes_are_json_for_scripts() {
        let (_, output) = checked("hostnam = \"dock1\"\n", true);
        let diagnostics: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(diagnostics[0]["location"]["line"], 1);
    }
}
