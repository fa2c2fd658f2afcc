//! The containers that no configuration declares, kept over a reboot on the state partition as JSON; see
//! [`crate::supervisor`]. Read with the configuration, written by a task whenever they change.
//!
//! What cannot be read is not lost: an entry is written back as it stands, and a file without entries is set aside.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use berth_control::message::Creation;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::files;

/// The file's name in [`crate::configuration::FOLDER`].
pub const NAME: &str = "made.json";

/// What a file that cannot be read is called from then on.
const ASIDE: &str = "made.unread";

/// What there is in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The containers.
    pub creations: Vec<Creation>,
    /// The other entries.
    pub unread: Vec<Unread>,
}

/// An entry that is no container for this program: another version's, or a broken one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unread {
    /// As it stands in the file.
    pub entry: Value,
    /// Why there is no container of it, in one sentence.
    pub reason: String,
}

impl Unread {
    /// Of the container that it should be; empty if it has none.
    pub fn name(&self) -> &str {
        self.entry.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(Some(self.creations.len() + self.unread.len()))?;
        self.creations.iter().try_for_each(|creation| entries.serialize_element(creation))?;
        self.unread.iter().try_for_each(|unread| entries.serialize_element(&unread.entry))?;
        entries.end()
    }
}

/// What is kept; nothing if there is no file.
pub fn read(path: &Path) -> Result<Kept, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(set_aside(path, &error)),
    };
    let entries: Vec<Value> = serde_json::from_slice(&text).map_err(|error| set_aside(path, &error))?;
    let mut kept = Kept::default();
    for entry in entries {
        match Creation::deserialize(&entry) {
            Ok(creation) => kept.creations.push(creation),
            Err(error) => kept.unread.push(Unread { entry, reason: error.to_string() }),
        }
    }
    Ok(kept)
}

/// So that the next write does not replace it; what is to be told.
fn set_aside(path: &Path, reason: &dyn std::fmt::Display) -> String {
    let aside = path.with_file_name(ASIDE);
    let stays = match fs::rename(path, &aside) {
        Ok(()) => format!("the file is {} now", aside.display()),
        Err(error) => format!("call it {}: {error}", aside.display()),
    };
    format!("read {}: {reason}; containers that `berth run` has made are not there, {stays}", path.display())
}

/// Replaces the file.
pub fn write(path: &Path, kept: &Kept) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| {
        format!("keep the containers that `berth run` has made in {}: {reason}", path.display())
    };
    let text = serde_json::to_vec(kept).map_err(|error| failed(&error))?;
    files::replace(path, &text).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Creation {
        let mut container = berth_config::Container::new("web:1".parse().unwrap());
        container.ports = vec!["8080:80".parse().unwrap()];
        container.volumes = vec!["data:/data:ro".parse().unwrap()];
        container.tty = true;
        Creation::plain("web".into(), container)
    }

    #[test]
    fn what_is_written_is_read_and_no_file_is_no_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        assert_eq!(read(&path), Ok(Kept::default()));
        let made = Kept { creations: vec![web()], unread: Vec::new() };
        write(&path, &made).unwrap();
        assert_eq!(read(&path), Ok(made));
    }

    #[test]
    fn an_entry_that_cannot_be_read_costs_no_other_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        let mut other = serde_json::to_value(web()).unwrap();
        other["name"] = "other".into();
        other["container"]["of_the_next_version"] = 1.into();
        let entries = serde_json::json!([other, web(), 7]);
        fs::write(&path, entries.to_string()).unwrap();
        let kept = read(&path).unwrap();
        assert_eq!(kept.creations, [web()]);
        assert_eq!(kept.unread.iter().map(Unread::name).collect::<Vec<_>>(), ["other", ""]);
        assert!(kept.unread[0].reason.contains("of_the_next_version"), "{}", kept.unread[0].reason);
        write(&path, &kept).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(written, serde_json::json!([web(), other, 7]));
    }

    #[test]
    fn a_file_without_entries_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        fs::write(&path, "[{").unwrap();
        let problem = read(&path).unwrap_err();
        assert!(problem.contains("made.json") && problem.contains("made.unread now"), "{problem}");
        write(&path, &Kept::default()).unwrap();
        assert_eq!(fs::read(folder.path().join("made.unread")).unwrap(), b"[{");
    }
}
