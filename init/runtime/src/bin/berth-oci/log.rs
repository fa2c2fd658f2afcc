//! Errors for people and, with `--log`, for the programs above.

use std::io::Write as _;

use crate::arguments::{Arguments, LogFormat};
use crate::container::Failure;
use crate::store;

/// To standard error, and to the log file in its format.
pub fn failure(arguments: &Arguments, failure: &Failure) {
    let text = failure.chain();
    eprintln!("berth-oci: {text}");
    let Some(path) = &arguments.log else { return };
    let time = store::timestamp(std::time::SystemTime::now());
    let line = match arguments.log_format {
        LogFormat::Json => serde_json::json!({ "level": "error", "msg": text, "time": time }).to_string(),
        LogFormat::Text => format!("time=\"{time}\" level=error msg={text:?}"),
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
        eprintln!("berth-oci: write {}: {error}", path.display());
    }
}
