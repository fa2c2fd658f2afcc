//! Who was logged in by hand, on the state partition: a file of root's in Docker's form.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::json;

use super::credentials::{self, Credentials};

/// All of them, by registry; none without the file.
pub fn read(path: &Path) -> io::Result<BTreeMap<String, Credentials>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
        Ok(text) => Ok(credentials::read(&text)?.0),
    }
}

/// Remembers or forgets one. Returns whether one was there. The file is whole at any moment: it is written aside, synced and
/// renamed.
pub fn set(path: &Path, registry: &str, login: Option<Credentials>) -> io::Result<bool> {
    let mut logins = read(path)?;
    let was_there = match login {
        Some(login) => logins.insert(registry.to_owned(), login).is_some(),
        None => logins.remove(registry).is_some(),
    };
    let entry = |login: &Credentials| json!({ "username": login.username, "password": login.password });
    let auths: BTreeMap<&String, _> = logins.iter().map(|(registry, login)| (registry, entry(login))).collect();
    let aside = path.with_extension("new");
    // Left over from a crash, perhaps with another mode.
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(json!({ "auths": auths }).to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(was_there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn logins_come_and_go_and_are_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        let login =
            |name: &str| Credentials { username: name.to_owned(), password: "a:b".to_owned(), identity_token: None };
        assert!(read(&path).unwrap().is_empty());
        assert!(!set(&path, "ghcr.io", Some(login("me"))).unwrap());
        assert!(!set(&path, "docker.io", Some(login("you"))).unwrap());
        assert!(set(&path, "ghcr.io", Some(login("we"))).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap()["ghcr.io"], login("we"));
        assert!(set(&path, "ghcr.io", None).unwrap());
        assert!(!set(&path, "ghcr.io", None).unwrap());
        assert_eq!(read(&path).unwrap().into_keys().collect::<Vec<_>>(), ["docker.io"]);
    }
}
