//! Sockets that only root connects to.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// Listens on this path, mode 0600; non-blocking and closed on exec. A socket that an earlier run left there is replaced.
///
/// # Errors
/// If the path cannot be bound, above all because its folder is missing or something else is in the way.
pub fn listen_on(path: &Path, kind: SockType) -> std::io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, kind, flags, None)?;
    // The file gets the mode of the unbound socket (net/unix/af_unix.c, unix_bind_bsd), so nobody connects before it is
    // right; and a umask would be the whole process's.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_for_its_owner_and_replaces_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        for _ in 0..2 {
            let _listener = listen_on(&path, SockType::Stream).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        }
    }
}
