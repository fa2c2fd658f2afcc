//! The engine's loop: one thread that waits for PID 1 and for the workers, and never for anything else.
//!
//! ```text
//!                 Declared                     image there
//!   (declared) ─────────────► waiting ──────────────────────► preparing ──► Prepared
//!                                │  ▲ no image, all archives      │ error
//!                                ▼  │ read                        ▼
//!                               pulling (PrepareDelayed)     PrepareFailed
//! ```
//!
//! A container whose image is there from an earlier start is prepared before any new archive is read. An image that no
//! archive has is pulled, again and again until it is there: [`crate::wanted`] says when.

mod asked;
mod preparer;
mod telling;
mod waiting;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use berth_control::channel::{Channel, ChannelError};
use berth_control::images::Query;
use berth_control::message::{Declaration, FromInit, Notice, PreparedImage, Registries, Reply, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use tokio::sync::mpsc::UnboundedSender;

pub use self::asked::Looks;
use self::preparer::Job;
use self::waiting::failed;
use crate::clients;
use crate::import::describe;
use crate::importer::{self, Event, Task};
use crate::missing;
use crate::prepare::Folders;
use crate::pull::puller;
use crate::registry::Patience;
use crate::store::{Policy, Store, StoreError};
use crate::volumes::Leaving;
use crate::wanted::Wanted;

/// Where the engine works.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The image store.
    pub images: PathBuf,
    /// The user's archives.
    pub archives: PathBuf,
    /// Writable layers and volumes.
    pub folders: Folders,
    /// Where clients ask for images.
    pub socket: PathBuf,
    /// How long registries are waited for.
    pub patience: Patience,
    /// How often it is looked what images may have to go.
    pub looks: Looks,
    /// Tells this boot from others: the kernel's boot_id.
    pub boot: String,
}

/// Why the engine ends.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// PID 1 cannot be talked to.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The image store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread or event cannot be made or waited for.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
}

/// What the workers tell the loop.
enum Message {
    Importer(Event),
    Puller(puller::Event),
    Prepared { name: String, round: u64, result: Box<Result<PreparedImage, String>> },
    Forgotten { name: String },
    Asked { query: Query, pipe: OwnedFd },
}

/// Serves PID 1 until it goes or says that the machine goes down.
pub fn run(channel: Channel, paths: Paths) -> Result<(), ServiceError> {
    let store = Arc::new(Store::open(&paths.images, &paths.boot)?);
    let (messages, inbox) = std::sync::mpsc::channel();
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let wake = rustix::event::eventfd(0, flags).map_err(|error| system("make an event descriptor")(error.into()))?;
    let wake = Arc::new(wake);
    let report = reporter(&messages, &wake);
    let tasks = importer::start(Arc::clone(&store), paths.archives.clone(), move |event| {
        report(Message::Importer(event));
    })
    .map_err(system("start the importer"))?;
    let report = reporter(&messages, &wake);
    let place = puller::Place {
        store: Arc::clone(&store),
        logins: paths.images.join("logins.json"),
        user_data: paths.folders.places.user_data.clone(),
        patience: paths.patience,
    };
    let pulls =
        puller::start(place, move |event| report(Message::Puller(event))).map_err(system("start the puller"))?;
    let ask = reporter(&messages, &wake);
    let ask = move |query, pipe| ask(Message::Asked { query, pipe });
    if let Err(error) = clients::start(&paths.socket, pulls.downgrade(), ask) {
        eprintln!("engine: listen on {}: {error}; clients cannot ask for images", paths.socket.display());
    }
    let jobs = preparer::start(Arc::clone(&store), paths.folders.clone(), reporter(&messages, &wake))?;
    let mut service = Service {
        channel,
        store,
        containers: paths.folders.containers,
        tasks,
        jobs,
        pulls,
        wanted: Wanted::default(),
        registries: None,
        waiting: BTreeMap::new(),
        jobs_open: 0,
        declared: false,
        untidy: true,
        next_id: 0,
        listing: 0,
        listed: Vec::new(),
        round: 0,
        looked: false,
        busy: false,
        may_look_again: false,
        declarations: BTreeMap::new(),
        leaving: Leaving::default(),
        held: Vec::new(),
        looks: paths.looks,
        room_looked_at: Instant::now(),
        age_looked_at: Instant::now(),
    };
    service.look();
    service.ask(Request::Registries)?;
    service.list()?;
    service.ask(Request::Ready)?;
    service.serve(&inbox, &wake)
}

fn system(operation: &'static str) -> impl FnOnce(std::io::Error) -> ServiceError {
    move |source| ServiceError::System { operation, source }
}

/// A way for a worker to leave a message and wake the loop.
fn reporter(messages: &Sender<Message>, wake: &Arc<OwnedFd>) -> impl Fn(Message) + Send + Sync + 'static {
    let (messages, wake) = (messages.clone(), Arc::clone(wake));
    move |message| {
        // Without a receiver the process is about to end; the counter cannot overflow in this machine's life.
        let _ = messages.send(message);
        let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
    }
}

struct Service {
    channel: Channel,
    store: Arc<Store>,
    /// Where writable layers are.
    containers: PathBuf,
    tasks: Sender<Task>,
    jobs: Sender<Job>,
    pulls: UnboundedSender<puller::Task>,
    wanted: Wanted,
    /// How registries are reached, as far as PID 1 has said.
    registries: Option<Registries>,
    /// Containers whose image is not there yet, and what PID 1 was told of it.
    waiting: BTreeMap<String, (Declaration, String)>,
    /// How many containers the preparer has not reported yet.
    jobs_open: usize,
    /// Whether PID 1 has said which containers there are.
    declared: bool,
    /// Whether the importer has something to tidy up.
    untidy: bool,
    next_id: u64,
    /// The number of the last [`Request::Declared`], and what its predecessors have brought.
    listing: u64,
    listed: Vec<Declaration>,
    /// Counts the answers to [`Request::Declared`]: what was prepared for an older one is of no interest.
    round: u64,
    /// Whether the importer has compared the archives with the catalogue.
    looked: bool,
    /// Whether the importer is at work.
    busy: bool,
    /// Whether the archives may have changed since they were last looked at.
    may_look_again: bool,
    /// All containers, as far as PID 1 has said.
    declarations: BTreeMap<String, Declaration>,
    /// Those that were declared until a moment ago.
    leaving: Leaving,
    /// What clients asked before that.
    held: Vec<(Query, OwnedFd)>,
    looks: Looks,
    room_looked_at: Instant,
    age_looked_at: Instant,
}

impl Service {
    fn serve(&mut self, inbox: &Receiver<Message>, wake: &OwnedFd) -> Result<(), ServiceError> {
        loop {
            let (from_init, from_workers) = {
                let mut events =
                    [PollFd::new(&self.channel, PollFlags::IN), PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
                match rustix::event::poll(&mut events, self.timeout().as_ref()) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(system("wait for events")(error.into())),
                }
                (!events[0].revents().is_empty(), !events[1].revents().is_empty())
            };
            if self.wanted.next().is_some_and(|next| next <= Instant::now()) {
                self.try_waiting()?;
            }
            self.look_at_spare();
            if from_workers {
                let mut counter = [0; 8];
                // Only resets it; what counts is in the inbox.
                let _ = rustix::io::read(wake, &mut counter);
                while let Ok(message) = inbox.try_recv() {
                    self.worker(message)?;
                }
                self.tidy();
            }
            if from_init {
                match self.channel.receive() {
                    Ok((message, _)) => {
                        if self.init(message)? {
                            return Ok(());
                        }
                        self.tidy();
                    }
                    Err(ChannelError::Closed) => return Ok(()),
                    Err(ChannelError::WouldBlock) => {}
                    Err(error @ ChannelError::Decode(_)) => {
                        eprintln!("engine: a message of PID 1 is left out: {}", describe(&error));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Asks for all containers from the beginning; what was asked before is of no interest.
    fn list(&mut self) -> Result<(), ServiceError> {
        self.listed.clear();
        self.ask(Request::Declared { after: String::new() })?;
        self.listing = self.next_id;
        Ok(())
    }

    /// Until an image is to be tried again, or there is something to look at.
    fn timeout(&self) -> Option<Timespec> {
        let next = self.wanted.next().map_or_else(|| self.next_look(), |next| next.min(self.next_look()));
        let until = next.saturating_duration_since(Instant::now());
        let seconds = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
        Some(Timespec { tv_sec: seconds, tv_nsec: until.subsec_nanos().into() })
    }

    fn look(&mut self) {
        self.busy = true;
        self.untidy = true;
        self.may_look_again = false;
        // The importer ends only with the process.
        let _ = self.tasks.send(Task::Look);
    }

    /// One message of PID 1. True if it was the last one.
    fn init(&mut self, message: FromInit) -> Result<bool, ServiceError> {
        match message {
            FromInit::Reply { id, reply: Reply::Declared { declarations, next } } if id == self.listing => {
                self.listed.extend(declarations);
                if let Some(after) = next {
                    self.ask(Request::Declared { after })?;
                    self.listing = self.next_id;
                    return Ok(false);
                }
                self.round += 1;
                let declared = std::mem::take(&mut self.listed);
                self.declare(&declared);
                let waiting = declared.into_iter().map(|one| (one.name.clone(), (one, String::new())));
                self.waiting = waiting.collect();
                self.try_waiting()?;
            }
            FromInit::Reply { reply: Reply::Registries(registries), .. } => {
                if self.registries.as_ref() != Some(&*registries) {
                    self.store.set_policy(Policy::from(&registries.images));
                    self.untidy = true;
                    self.registries = Some((*registries).clone());
                    self.wanted.try_now();
                    // The puller ends only with the process.
                    let _ = self.pulls.send(puller::Task::Registries(registries));
                }
            }
            FromInit::Reply { reply: Reply::Refused { reason }, .. } => {
                eprintln!("engine: PID 1 refused a request: {reason}");
            }
            FromInit::Notice(Notice::DeclaredChanged | Notice::Resumed) => {
                self.may_look_again = true;
                self.ask(Request::Registries)?;
                self.list()?;
            }
            FromInit::Notice(Notice::Prepare(declaration)) => {
                self.may_look_again = true;
                self.declare_one(&declaration);
                self.waiting.insert(declaration.name.clone(), (*declaration, String::new()));
                self.try_waiting()?;
            }
            FromInit::Notice(Notice::Forget { name, volumes }) => {
                self.waiting.remove(&name);
                self.declarations.remove(&name);
                self.leaving.forget(&name);
                self.store.forget_container(&name);
                // The preparer ends only with the process.
                let _ = self.jobs.send(Job::Forget { name, volumes });
            }
            FromInit::Notice(Notice::ShuttingDown) => {
                // What is imported so far need not be imported again. A draft is left behind and removed next time.
                self.store.commit()?;
                return Ok(true);
            }
            FromInit::Reply { .. } | FromInit::Notice(_) => {}
        }
        Ok(false)
    }

    fn worker(&mut self, message: Message) -> Result<(), ServiceError> {
        match message {
            Message::Importer(event) => {
                match event {
                    Event::Looked => self.looked = true,
                    Event::Imported => {}
                    Event::Idle => self.busy = false,
                }
                self.try_waiting()
            }
            Message::Forgotten { name } => self.ask(Request::Forgotten { name }),
            Message::Asked { query, pipe } => {
                self.asked(query, pipe);
                Ok(())
            }
            Message::Puller(event) => {
                match event {
                    puller::Event::Pulled(reference) => self.wanted.forget(&reference.to_string()),
                    puller::Event::Failed(reference, reason, asked) => {
                        let reason = missing::explain(&reference, &self.store, Some(&reason));
                        self.wanted.failed(&reference.to_string(), &reason, asked, Instant::now());
                    }
                }
                self.try_waiting()
            }
            Message::Prepared { name, round, result } => {
                self.jobs_open -= 1;
                match *result {
                    _ if round != self.round => Ok(()),
                    Ok(image) => self.tell_prepared(name, Box::new(image)),
                    Err(reason) => self.ask(failed(name, &reason)),
                }
            }
        }
    }

    /// Syncs and removals wait until no container waits for the disk. All containers must be known by then, so that
    /// the image of none of them is forgotten.
    fn tidy(&mut self) {
        if self.untidy && self.declared && !self.busy && self.jobs_open == 0 {
            self.untidy = false;
            // The importer ends only with the process.
            let _ = self.tasks.send(Task::Tidy);
        }
    }
}
