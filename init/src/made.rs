//! The containers that no configuration declares, kept over a reboot on the state partition as JSON; see
//! [`crate::supervisor`]. Read with the configuration, written by a task whenever they change.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use berth_control::message::Creation;

use crate::files;

/// Where they are kept.
pub const PATH: &str = "/var/lib/berth/configuration/made.json";

/// Those that are kept; none if there is no file.
pub fn read(path: &Path) -> Result<Vec<Creation>, String> {
    let failed = |reason: &dyn std::fmt::Display| {
        format!("read {}: {reason}; containers that `berth run` has made are not there", path.display())
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(&error)),
    }
}

/// Replaces the file.
pub fn write(path: &Path, made: &[Creation]) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| {
        format!("keep the containers that `berth run` has made in {}: {reason}", path.display())
    };
    let text = serde_json::to_vec(made).map_err(|error| failed(&error))?;
    files::replace(path, &text).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_file_is_no_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        assert_eq!(read(&path), Ok(Vec::new()));
        let mut container = berth_config::Container::new("web:1".parse().unwrap());
        container.ports = vec!["8080:80".parse().unwrap()];
        container.volumes = vec!["data:/data:ro".parse().unwrap()];
        container.tty = true;
        let made = vec![Creation::plain("web".into(), container)];
        write(&path, &made).unwrap();
        assert_eq!(read(&path), Ok(made));
        fs::write(&path, "[{").unwrap();
        assert!(read(&path).unwrap_err().contains("made.json"));
    }
}
