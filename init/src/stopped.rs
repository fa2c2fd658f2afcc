//! The containers that somebody stopped and that stay stopped over a reboot: those with `restart = "unless-stopped"`.
//!
//! One name a line, on the state partition. Read with the configuration, written by a task whenever it changes.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::files;

/// The file's name in [`crate::configuration::FOLDER`].
pub const NAME: &str = "stopped";

/// The names; none if there is no file. Lines that are no names of containers are harmless: nothing is called that.
pub fn read(path: &Path) -> Result<BTreeSet<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => {
            Err(format!("read {}: {error}; containers that were stopped by hand start again", path.display()))
        }
    }
}

/// Replaces the file.
pub fn write(path: &Path, names: &BTreeSet<String>) -> Result<(), String> {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    let failed = |error| format!("keep which containers were stopped by hand in {}: {error}", path.display());
    files::replace(path, text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_file_is_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stopped");
        assert_eq!(read(&path), Ok(BTreeSet::new()));
        let names = BTreeSet::from(["db".to_owned(), "web".to_owned()]);
        write(&path, &names).unwrap();
        assert_eq!(read(&path), Ok(names));
    }
}
