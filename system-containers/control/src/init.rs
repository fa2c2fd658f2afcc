//! PID 1 as seen from here: requests with their answers, and its notices to whoever listens.
//!
//! One task reads the channel. A request waits for its answer under its number and no longer than [`patience`]; an answer
//! that nobody waits for any more is dropped.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_config::ApiPart;
use berth_control::channel::{Channel, ChannelError};
use berth_control::dbus::{ApiError, Change};
use berth_control::message::{FromInit, Notice, Reply, Request, ToInit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::past::Past;
use crate::sys;

/// How long PID 1 has for an answer. It answers within milliseconds or not at all; this is for a PID 1 that is being
/// replaced under us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it has for what a task of its own does first: reads from the disk and writes to it, which on a busy card waits
/// for what others write, or tries a program out, which alone may take 20 s.
const TASK_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a removal may take: of PID 1 it is answered when the engine has removed all files, behind what that does already.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(600);

/// How many notices a client may be behind before it is told that it has missed some: a start of 64 containers at
/// once, with the states of each, for a client that does not read at all.
const NOTICES: usize = 256;

/// An answer, and the descriptors that came with it.
pub(crate) type Answer = (Reply, Vec<OwnedFd>);

/// The connection to PID 1.
pub struct Init {
    channel: AsyncFd<Channel>,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next_id: AtomicU64,
    notices: broadcast::Sender<Notice>,
    past: Mutex<Past>,
    grants: mpsc::UnboundedSender<Grant>,
    granted: Mutex<Option<mpsc::UnboundedReceiver<Grant>>>,
    questioned: Notify,
    closed: Notify,
}

/// What PID 1 says of the sockets in user containers.
#[derive(Debug)]
pub enum Grant {
    /// Serve what comes over this one.
    Open {
        /// The container.
        container: String,
        /// What it may use.
        parts: Vec<ApiPart>,
        /// The machine's user ID of the container's root.
        uid_base: u32,
        /// Listens.
        listener: OwnedFd,
    },
    /// The container has ended.
    Close {
        /// Which.
        container: String,
    },
}

impl Init {
    /// Takes the channel and begins to read it. Call within a tokio runtime.
    pub fn start(channel: Channel) -> Result<Arc<Self>, ChannelError> {
        channel.set_nonblocking()?;
        let channel = sys::watch(channel).map_err(|error| ChannelError::System {
            operation: "epoll_ctl",
            source: nix::Error::from_raw(error.raw_os_error().unwrap_or(0)),
        })?;
        // PID 1 sends as many as there are containers with such a socket.
        let (grants, granted) = mpsc::unbounded_channel();
        let init = Arc::new(Self {
            channel,
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            notices: broadcast::channel(NOTICES).0,
            past: Mutex::default(),
            grants,
            granted: Mutex::new(Some(granted)),
            questioned: Notify::new(),
            closed: Notify::new(),
        });
        tokio::spawn(Arc::clone(&init).read());
        Ok(init)
    }

    /// Tells PID 1 that clients can be served.
    pub async fn ready(&self) -> Result<(), ApiError> {
        match self.call_with(Request::Ready, &[]).await? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Returns when PID 1 asks for a sign of life; who can serve clients gives it.
    pub async fn asked_for_sign(&self) {
        self.questioned.notified().await;
    }

    /// Gives PID 1 the sign of life.
    pub async fn give_sign(&self) -> Result<(), ApiError> {
        self.call_with(Request::Alive, &[]).await.map(drop)
    }

    /// Returns when PID 1 has closed the channel.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// What PID 1 says of sockets; once.
    pub fn grants(&self) -> Option<mpsc::UnboundedReceiver<Grant>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// PID 1's notices from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What has happened to containers since a moment, in microseconds since 1970 (UTC), as far as it is remembered.
    pub fn changes_since(&self, since_us: u64) -> Vec<Change> {
        self.past().since(since_us)
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    pub(crate) async fn call_with(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, ApiError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let within = patience(&request);
        let (answered, answer) = oneshot::channel();
        self.waiting().insert(id, answered);
        let waiting = Waiting { init: self, id };
        let reply = tokio::time::timeout(within, async {
            self.send(&ToInit { id, request }, descriptors).await?;
            answer
                .await
                .map_err(|_| unavailable("PID 1 had a defect before it answered; see `berth boot`, and try again"))
        })
        .await;
        drop(waiting);
        match reply {
            Ok(Ok((Reply::Refused { reason }, _))) => Err(ApiError::Refused(reason)),
            Ok(reply) => reply,
            Err(_) => {
                let seconds = within.as_secs();
                Err(unavailable(&format!(
                    "PID 1 did not answer within {seconds} s; the kernel log says what it is doing"
                )))
            }
        }
    }

    async fn send(&self, message: &ToInit, descriptors: &[BorrowedFd<'_>]) -> Result<(), ApiError> {
        let sent = self
            .channel
            .async_io(Interest::WRITABLE, |channel| match channel.send(message, descriptors) {
                Err(ChannelError::WouldBlock) => Err(std::io::ErrorKind::WouldBlock.into()),
                other => Ok(other),
            })
            .await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(&format!("the request did not reach PID 1: {error}"))),
            Err(error) => Err(unavailable(&format!("the request did not reach PID 1: {error}"))),
        }
    }

    /// Reads until the channel ends.
    async fn read(self: Arc<Self>) {
        loop {
            let received = self
                .channel
                .async_io(Interest::READABLE, |channel| match channel.receive::<FromInit>() {
                    Err(ChannelError::WouldBlock) => Err(std::io::ErrorKind::WouldBlock.into()),
                    other => Ok(other),
                })
                .await;
            match received {
                Ok(Ok((FromInit::Reply { id, reply }, descriptors))) => self.answer(id, (reply, descriptors)),
                // What PID 1 had not answered by then it never will.
                Ok(Ok((FromInit::Notice(Notice::Resumed), _))) => self.waiting().clear(),
                Ok(Ok((FromInit::Notice(Notice::AreYouAlive), _))) => self.questioned.notify_one(),
                Ok(Ok((FromInit::Notice(Notice::ApiSocket { container, parts, uid_base }), descriptors))) => {
                    for listener in descriptors {
                        // Without a server nobody is served; PID 1 starts this program again.
                        let (container, parts) = (container.clone(), parts.clone());
                        let _ = self.grants.send(Grant::Open { container, parts, uid_base, listener });
                    }
                }
                Ok(Ok((FromInit::Notice(Notice::ApiClosed { container }), _))) => {
                    let _ = self.grants.send(Grant::Close { container });
                }
                // No receivers is the normal case: nobody has subscribed.
                Ok(Ok((FromInit::Notice(notice), _))) => {
                    self.past().add(&notice);
                    drop(self.notices.send(notice));
                }
                Ok(Err(error @ (ChannelError::Decode(_) | ChannelError::TooLong { .. }))) => {
                    eprintln!("berth-control: a message from PID 1 is left out: {error}");
                }
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.waiting().clear();
        self.closed.notify_one();
    }

    fn answer(&self, id: u64, answer: Answer) {
        if let Some(waiting) = self.waiting().remove(&id) {
            // The caller may have given up in this moment.
            let _ = waiting.send(answer);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the answer may take.
fn patience(request: &Request) -> Duration {
    match request {
        Request::Remove { .. } => REMOVAL_TIMEOUT,
        Request::Plan | Request::Apply { .. } | Request::Confirm | Request::Reexecute | Request::Boots => TASK_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    }
}

/// Forgets a request when its caller goes, however it goes.
struct Waiting<'a> {
    init: &'a Init,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.init.waiting().remove(&self.id);
    }
}

pub(crate) fn unavailable(reason: &str) -> ApiError {
    ApiError::Unavailable(reason.to_owned())
}

/// An answer of the wrong kind: PID 1 and this program are not of one build.
pub fn unexpected(reply: &Reply) -> ApiError {
    let text = format!("{reply:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    unavailable(&format!("PID 1 answered with {kind}, which is no answer to this request"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_pid_1_does_in_a_task_has_more_time() {
        let (_ours, theirs) = Channel::pair().unwrap();
        let init = Init::start(theirs).unwrap();
        for (request, within) in [
            (Request::Machine, "within 10 s"),
            (Request::Apply { confirm_ms: None }, "within 120 s"),
            (Request::Confirm, "within 120 s"),
            (Request::Reexecute, "within 120 s"),
        ] {
            let given_up = init.call_with(request.clone(), &[]).await;
            let Err(ApiError::Unavailable(reason)) = given_up else { panic!("{request:?}: {given_up:?}") };
            assert!(reason.contains(within), "{request:?}: {reason}");
        }
    }
}
