//! The state directory: one directory a container, with `state.json` and, until it is started, `start.sock`; while it
//! is made, `cgroup` leads to its cgroup.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_runtime::spec::{Spec, Status};
use serde::{Deserialize, Serialize};

use crate::container::{Failure, during};

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub pid: i32,
    /// Of the process, in clock ticks since the boot: tells it from a later one with its number.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub cgroup: Option<PathBuf>,
    /// RFC 3339.
    pub created: String,
    pub owner: String,
    /// As it was when the container was created.
    pub spec: Spec,
}

/// Where state is kept if nobody says.
pub fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    own.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("berth-oci")
}

/// All containers below one root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory of a container, by a checked name.
    pub fn directory(&self, id: &str) -> Result<PathBuf, Failure> {
        let allowed = |character: char| character.is_ascii_alphanumeric() || "_+-.".contains(character);
        if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(allowed) {
            return Err(Failure::Id { id: id.to_owned() });
        }
        Ok(self.root.join(id))
    }

    /// Takes the name; nobody else can from here on.
    pub fn claim(&self, id: &str) -> Result<PathBuf, Failure> {
        let directory = self.directory(id)?;
        std::fs::create_dir_all(&self.root).map_err(during("create", &self.root))?;
        match std::fs::create_dir(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::Exists { id: id.to_owned() })
            }
            Err(error) => Err(during("create", &directory)(error)),
        }
    }

    /// Puts down the cgroup of a container that has no record yet: should this command be killed, [`Self::noted_cgroup`]
    /// has what is to be removed.
    pub fn note_cgroup(&self, id: &str, cgroup: &Path) -> Result<(), Failure> {
        let link = self.cgroup_note(id)?;
        std::os::unix::fs::symlink(cgroup, &link).map_err(during("create", &link))
    }

    /// The record has it now.
    pub fn forget_cgroup(&self, id: &str) -> Result<(), Failure> {
        let link = self.cgroup_note(id)?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(during("remove", &link)(error)),
            _ => Ok(()),
        }
    }

    /// Of a container without a record.
    pub fn noted_cgroup(&self, id: &str) -> Result<Option<PathBuf>, Failure> {
        Ok(std::fs::read_link(self.cgroup_note(id)?).ok())
    }

    fn cgroup_note(&self, id: &str) -> Result<PathBuf, Failure> {
        Ok(self.directory(id)?.join("cgroup"))
    }

    /// Writes the record; whole or not at all.
    pub fn save(&self, record: &Record) -> Result<(), Failure> {
        let directory = self.directory(&record.id)?;
        let text = serde_json::to_vec(record).map_err(|error| Failure::Json { what: "state.json".into(), error })?;
        let (new, path) = (directory.join("state.json.new"), directory.join("state.json"));
        std::fs::write(&new, text).map_err(during("write", &new))?;
        std::fs::rename(&new, &path).map_err(during("rename", &path))
    }

    pub fn load(&self, id: &str) -> Result<Record, Failure> {
        let path = self.directory(id)?.join("state.json");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::NotFound { id: id.to_owned() });
            }
            result => result.map_err(during("read", &path))?,
        };
        serde_json::from_slice(&text).map_err(|error| Failure::Json { what: path.display().to_string(), error })
    }

    pub fn forget(&self, id: &str) -> Result<(), Failure> {
        let directory = self.directory(id)?;
        // The usual case: nothing else is in it.
        let emptied = std::fs::remove_file(directory.join("state.json"));
        if emptied.is_ok() && std::fs::remove_dir(&directory).is_ok() {
            return Ok(());
        }
        match std::fs::remove_dir_all(&directory) {
            // `run` in the foreground and `delete --force` see the same end.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(during("remove", &directory)),
        }
    }

    /// Every container that can be read, by name.
    pub fn all(&self) -> Vec<Record> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        let mut all: Vec<Record> =
            entries.flatten().filter_map(|entry| self.load(&entry.file_name().to_string_lossy()).ok()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Where a container waits for its start.
    pub fn gate(&self, id: &str) -> Result<PathBuf, Failure> {
        Ok(self.directory(id)?.join("start.sock"))
    }

    pub fn status(&self, record: &Record) -> Status {
        if process_start_time(record.pid) != Some(record.start_time) {
            return Status::Stopped;
        }
        // First, as runc has it: what was only created cannot be started while it is paused.
        let frozen = |cgroup: &Path| {
            std::fs::read_to_string(cgroup.join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1"))
        };
        if record.cgroup.as_deref().is_some_and(frozen) {
            return Status::Paused;
        }
        let waits = self.gate(&record.id).is_ok_and(|gate| gate.exists());
        if waits { Status::Created } else { Status::Running }
    }
}

/// In clock ticks since the boot; none for a process that has ended.
pub fn process_start_time(pid: i32) -> Option<u64> {
    use std::io::Read as _;
    // Some fifty numbers: read in one go.
    let mut stat = [0; 1024];
    let length = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut stat).ok()?;
    let stat = String::from_utf8_lossy(stat.get(..length)?);
    // The name in parentheses may contain anything, so count from its end: the state is the first field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// RFC 3339 in UTC, to the nanosecond.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1970 to a date, by eras of 400 years that begin in March (Howard Hinnant, "chrono-compatible
    // low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_its_date() {
        let text = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(text(1_795_348_799), "2026-11-22T11:59:59.000000000Z");
    }

    #[test]
    fn a_name_cannot_leave_the_root() {
        let store = Store::new("/run/x".into());
        for id in ["", ".", "..", "a/b", "../a", "a b"] {
            assert!(store.directory(id).is_err(), "{id}");
        }
        assert!(store.directory("web-1.2_x+y").is_ok());
    }
}
