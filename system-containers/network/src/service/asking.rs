//! Containers that wait for what machines outside say of their addresses, while everything else goes on.
//!
//! ```text
//! attach ── unasked ──→ Pending ── answer ──→ attach, with all answers so far
//!                          └── detached, or attached otherwise: the answer is for nobody
//! ```

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use berth_control::message::Attachment;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use crate::containers::{Answers, Question};
use crate::dhcp::message::Mac;
use crate::{arp, report};

/// Answers that wait to be handled; who asks waits with them.
const ANSWERED_LIMIT: usize = 64;

/// What has become of a question for a container.
#[derive(Debug)]
pub struct Answered {
    container: String,
    question: Question,
    owner: Option<Mac>,
}

/// What a container is to be attached with, and what is known already.
#[derive(Debug)]
pub struct Pending {
    pub wanted: Attachment,
    pub namespace: Option<OwnedFd>,
    pub answers: Answers,
}

/// All of them, by name, each with the task that asks.
#[derive(Debug)]
pub struct Asking {
    pending: BTreeMap<String, (Pending, Question, JoinHandle<()>)>,
    answered: Sender<Answered>,
}

impl Asking {
    /// Nobody yet; the answers are to be given back to [`Self::take`].
    pub fn new() -> (Self, Receiver<Answered>) {
        let (answered, answers) = channel(ANSWERED_LIMIT);
        (Self { pending: BTreeMap::new(), answered }, answers)
    }

    /// Asks for a container, within a tokio runtime.
    pub fn begin(&mut self, pending: Pending, question: Question) {
        let (container, answered) = (pending.wanted.name.clone(), self.answered.clone());
        let name = container.clone();
        let task = tokio::spawn(async move {
            let Question { link, mac, address } = question;
            let owner = arp::port::ask(link, mac, address).await.unwrap_or_else(|error| {
                report::say(format_args!("{container}: cannot ask who has {address}: {error}"));
                None
            });
            // Nobody takes it when the program ends.
            let _ended = answered.send(Answered { container, question, owner }).await;
        });
        self.forget(&name);
        self.pending.insert(name, (pending, question, task));
    }

    /// The container that an answer is for, with it.
    pub fn take(&mut self, Answered { container, question, owner }: Answered) -> Option<Pending> {
        // One of before may have been on its way when the container was detached.
        let (_, asked, _) = self.pending.get(&container)?;
        if *asked != question {
            return None;
        }
        let (mut pending, ..) = self.pending.remove(&container)?;
        pending.answers.insert(question, owner);
        Some(pending)
    }

    /// A container does not wait any more.
    pub fn forget(&mut self, container: &str) {
        if let Some((_, _, task)) = self.pending.remove(container) {
            task.abort();
        }
    }

    /// Whether connections are to be sent to one that waits.
    pub fn serve(&mut self, container: &str, serving: bool) {
        if let Some((pending, ..)) = self.pending.get_mut(container) {
            pending.wanted.serving = serving;
        }
    }
}
