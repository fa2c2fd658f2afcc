//! Errors and warnings for people and, with `--log`, for the programs above.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use crate::arguments::LogFormat;
use crate::container::{Failure, during};
use crate::store;

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: LogFormat,
}

impl Log {
    /// Opens the file, and makes it where it is not there: who asked for it reads it whatever comes.
    pub fn new(path: Option<&Path>, format: LogFormat) -> Result<Self, Failure> {
        let open =
            |path: &Path| OpenOptions::new().create(true).append(true).open(path).map_err(during("open the log", path));
        Ok(Self { file: path.map(open).transpose()?, format })
    }

    /// One for standard error alone.
    pub fn without_file() -> Self {
        Self { file: None, format: LogFormat::Text }
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
        let Some(mut file) = self.file.as_ref() else { return };
        let time = store::timestamp(std::time::SystemTime::now());
        let line = match self.format {
            LogFormat::Json => serde_json::json!({ "level": level, "msg": text, "time": time }).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            eprintln!("berth-oci: write the log: {error}");
        }
    }
}
