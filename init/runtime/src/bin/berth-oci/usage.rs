//! From the words on the command line to [`Arguments`], or to what is said of words that cannot be understood: as runc
//! does, in the log as well, and with its exit codes.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _, ValueEnum as _};

use crate::arguments::{Arguments, LogFormat};
use crate::log::Log;

/// What runc exits with if there is no such command.
const NO_SUCH_COMMAND: u8 = 3;

/// The error is the code to exit with; everything is said then.
pub fn parse() -> Result<Arguments, ExitCode> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    loop {
        match Arguments::try_parse_from(&words) {
            Ok(arguments) => return Ok(arguments),
            Err(error) if take_truth(&mut words, &error) => {}
            Err(error) => return Err(explain(&words, &error)),
        }
    }
}

/// Callers of runc may write `--detach=true` for `--detach`, and `--detach=false` for nothing. Whether that was what
/// was wrong with the words, and is no longer.
fn take_truth(words: &mut Vec<OsString>, error: &clap::Error) -> bool {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (ErrorKind::TooManyValues, Some(flag), Some(value)) =
        (error.kind(), text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
    else {
        return false;
    };
    // As Go's strconv.ParseBool has them.
    let truth = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return false,
    };
    let wrong = OsString::from(format!("{flag}={value}"));
    let Some(position) = words.iter().position(|word| *word == wrong) else { return false };
    match words.get_mut(position) {
        Some(word) if truth => *word = OsString::from(flag),
        _ => drop(words.remove(position)),
    }
    true
}

fn explain(words: &[OsString], error: &clap::Error) -> ExitCode {
    let help = match error.kind() {
        // Asked for nothing, runc prints its help and is content.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Some(Arguments::command().render_help())
        }
        _ if !error.use_stderr() => Some(error.render()),
        _ => None,
    };
    if let Some(help) = help {
        // A closed output leaves nobody to tell.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), help.to_string().as_bytes());
        return ExitCode::SUCCESS;
    }
    let (path, format) = log_options(words);
    // A log that cannot be opened is one more mistake of the same words; the first is told.
    let log = Log::new(path.as_deref().map(Path::new), format).unwrap_or_else(|_| Log::without_file());
    log.error(&message(error));
    match error.kind() {
        ErrorKind::InvalidSubcommand => ExitCode::from(NO_SUCH_COMMAND),
        _ => ExitCode::FAILURE,
    }
}

/// What is wrong, in one line: what clap says before its advice.
fn message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let line = lines.join(" ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

/// The options of the log among words that are wrong somewhere. They come before the command.
fn log_options(words: &[OsString]) -> (Option<OsString>, LogFormat) {
    let (mut path, mut format) = (None, LogFormat::Text);
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let (name, attached) = word.split_once('=').map_or((&*word, None), |(name, value)| (name, Some(value)));
        let mut value = || attached.map(OsString::from).or_else(|| words.next().cloned());
        match name {
            "--log" => path = value(),
            "--log-format" => {
                let name = value().unwrap_or_default();
                format = LogFormat::from_str(&name.to_string_lossy(), false).unwrap_or(LogFormat::Text);
            }
            "--root" | "--rootless" | "--criu" => drop(value()),
            name if !name.starts_with('-') => break,
            _ => {}
        }
    }
    (path, format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn flags_may_say_that_they_are_true() {
        let changed = |text: &str| {
            let mut words = words(text);
            let error = Arguments::try_parse_from(&words).unwrap_err();
            take_truth(&mut words, &error).then(|| words.join(&OsString::from(" ")).into_string().unwrap())
        };
        assert_eq!(changed("berth-oci exec --detach=true x y"), Some("berth-oci exec --detach x y".to_owned()));
        assert_eq!(changed("berth-oci exec --detach=false x y"), Some("berth-oci exec x y".to_owned()));
        assert_eq!(changed("berth-oci --debug=1 list"), Some("berth-oci --debug list".to_owned()));
        assert_eq!(changed("berth-oci exec --detach=perhaps x y"), None);
    }

    #[test]
    fn the_log_is_found_among_wrong_words() {
        let found = |text: &str| log_options(&words(text));
        assert_eq!(found("x --log a --log-format=json nope"), (Some("a".into()), LogFormat::Json));
        assert_eq!(found("x --root --log --nope --log=b state"), (Some("b".into()), LogFormat::Text));
        assert_eq!(found("x state --log c"), (None, LogFormat::Text));
    }

    #[test]
    fn what_is_wrong_is_one_line() {
        let said = |text: &str| message(&Arguments::try_parse_from(words(text)).unwrap_err());
        assert_eq!(said("x state"), "the following required arguments were not provided: <ID> (see --help)");
        assert_eq!(said("x nope"), "unrecognized subcommand 'nope' (see --help)");
    }
}
