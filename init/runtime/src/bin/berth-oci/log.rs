//! Errors and warnings for people and, with `--log`, for the programs above.

use std::io::Write as _;
use std::path::PathBuf;

use crate::arguments::{Arguments, LogFormat};
use crate::store;

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    pub fn new(arguments: &Arguments) -> Self {
        Self { path: arguments.log.clone(), format: arguments.log_format }
    }

    /// Why the command ends.
    pub fn error(&self, text: &str) {
        self.write("error", text);
    }

    /// What is worth knowing although the command goes on.
    pub fn warning(&self, text: &str) {
        self.write("warning", text);
    }

    /// To standard error, and to the log file in its format.
    fn write(&self, level: &str, text: &str) {
        eprintln!("berth-oci: {text}");
        let Some(path) = &self.path else { return };
        let time = store::timestamp(std::time::SystemTime::now());
        let line = match self.format {
            LogFormat::Json => serde_json::json!({ "level": level, "msg": text, "time": time }).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
            eprintln!("berth-oci: write {}: {error}", path.display());
        }
    }
}
