//! A socket, and the task that hears what comes there for as long as somebody holds on to this.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{self, MsgFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// Both of them.
#[derive(Debug)]
pub struct Listening<S> {
    socket: Arc<S>,
    task: JoinHandle<()>,
}

impl<S> Listening<S> {
    /// Begins to hear, within a tokio runtime.
    pub fn begin<H>(socket: S, hear: impl FnOnce(Arc<S>) -> H) -> Self
    where
        H: Future<Output = ()> + Send + 'static,
    {
        let socket = Arc::new(socket);
        let task = tokio::spawn(hear(Arc::clone(&socket)));
        Self { socket, task }
    }

    /// To send by it.
    pub fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S> Drop for Listening<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands on what `read` makes of each packet of at most so many bytes; ends when the socket does or nobody takes them.
pub async fn hand_on<const LARGEST: usize, T>(
    socket: Arc<AsyncFd<OwnedFd>>,
    heard: Sender<T>,
    read: impl Fn(&[u8]) -> Option<T>,
) {
    let mut buffer = [0; LARGEST];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let result = ready.try_io(|socket| Ok(socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
        match result {
            Err(_) => {}
            Ok(Ok(length)) => {
                if let Some(packet) = buffer.get(..length).and_then(&read)
                    && heard.send(packet).await.is_err()
                {
                    return;
                }
            }
            // The link is down for a moment: the socket stays and hears again when it is up.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Ok(Err(_)) => return,
        }
    }
}
