//! Private keys of tunnels that the configuration gives none: made once, kept on the state partition.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use berth_config::{LinkName, WireGuard, WireGuardKey};

/// The tunnel's key: the configuration's, the one that is kept in `directory`, or a new one that is kept there.
pub fn of(directory: &Path, name: &LinkName, tunnel: &WireGuard) -> io::Result<WireGuardKey> {
    if let Some(key) = tunnel.private_key {
        return Ok(key);
    }
    let path = directory.join(format!("{name}.key"));
    match fs::read_to_string(&path) {
        Ok(text) => return text.trim_end().parse().map_err(io::Error::other),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let key = WireGuardKey::new(bytes);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let (keys, name) = (directory.path().join("keys"), "wg0".parse().unwrap());
        let key = of(&keys, &name, &WireGuard::default()).unwrap();
        assert_eq!(of(&keys, &name, &WireGuard::default()).unwrap(), key);
        assert_ne!(of(&keys, &"wg1".parse().unwrap(), &WireGuard::default()).unwrap(), key);
        let mode = fs::metadata(keys.join("wg0.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let given = WireGuard { private_key: Some(WireGuardKey::new([7; 32])), ..WireGuard::default() };
        assert_eq!(of(&keys, &name, &given).unwrap(), WireGuardKey::new([7; 32]));
    }
}
