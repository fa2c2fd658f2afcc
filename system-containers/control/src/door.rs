//! Whether clients get in: this program is a client of its own socket, to know what others would find there.

use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, getpeername, getsockname, socket};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// How long it is waited before another attempt.
const AGAIN: Duration = Duration::from_millis(100);

/// The machine's socket, as those outside meet it.
#[derive(Debug, Default)]
pub struct Door {
    /// Changes with everybody who is let in.
    let_in: watch::Sender<()>,
    /// Somebody was let in and waits for a place, and all others behind.
    is_full: AtomicBool,
    /// Where this program comes from.
    own: Mutex<Option<UnixAddr>>,
}

impl Door {
    /// Returns once it is known that who comes is let in, or would be if there were fewer; never if nobody is.
    pub async fn is_open(&self, path: &Path) {
        let mut let_in = self.let_in.subscribe();
        while !self.is_full.load(Ordering::Relaxed) {
            match self.come(path) {
                Ok(_ours) => {
                    // The sender is this object's.
                    let _ = let_in.changed().await;
                    return;
                }
                // The socket's file is gone, or so many wait outside that no more can.
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Comes to the door as a client does. A connection to a socket of this kind is made at once, or not at all.
    fn come(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let ours = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // The kernel finds an address that nobody else has (unix(7), autobind).
        bind(ours.as_raw_fd(), &UnixAddr::new_unnamed())?;
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(getsockname(ours.as_raw_fd())?);
        connect(ours.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(ours)
    }

    /// Somebody is let in. True: it is only this program, which wants nothing more.
    pub fn lets_in(&self, stream: &UnixStream) -> bool {
        self.let_in.send_replace(());
        let peer = getpeername::<UnixAddr>(stream.as_raw_fd()).ok();
        peer.is_some() && peer == *self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub async fn wait<P>(&self, place: impl Future<Output = P>) -> P {
        self.is_full.store(true, Ordering::Relaxed);
        let place = place.await;
        self.is_full.store(false, Ordering::Relaxed);
        place
    }
}
