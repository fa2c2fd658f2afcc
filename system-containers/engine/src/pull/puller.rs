//! The thread with the network: it pulls what the engine's loop and clients ask for, each image once at a time.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_control::images::{End as Ended, PullEvent, Pulled};
use berth_control::message::Registries;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{mpsc, watch};

use super::Pulling;
use super::progress::Progress;
use crate::commands::Command;
use crate::import::describe;
use crate::reference::Reference;
use crate::registry::{Patience, Settings, Shared};
use crate::store::Store;

/// How often a client hears how far a pull has come.
const TICK: Duration = Duration::from_millis(200);

/// What the engine's loop tells the puller.
#[derive(Debug)]
pub enum Task {
    /// This is how registries are reached from now on.
    Registries(Box<Registries>),
    /// Pull this and report it.
    Pull(Reference),
    /// The same, for a client that reads [`PullEvent`]s from this pipe.
    Tell(Reference, OwnedFd),
    /// Do this, and write an [`Ended`] into this pipe.
    Command(Command, OwnedFd),
    /// Write what there is into this pipe.
    List(OwnedFd),
}

/// What the puller tells the engine's loop.
#[derive(Debug)]
pub enum Event {
    /// An image is there, whoever asked for it.
    Pulled(Reference),
    /// It is not, for this reason.
    Failed(Reference, String),
}

/// What the puller works with.
pub struct Place {
    /// The image store.
    pub store: Arc<Store>,
    /// Where the user-data partition is mounted.
    pub user_data: PathBuf,
    /// How long is waited.
    pub patience: Patience,
}

/// How a pull ends.
type End = Result<Pulled, String>;

/// A pull that is under way.
#[derive(Clone)]
struct Job {
    progress: Arc<Progress>,
    end: watch::Receiver<Option<End>>,
}

/// Pulls, shared by all tasks of the thread.
pub struct Puller {
    place: Place,
    pulling: Pulling,
    shared: Shared,
    registries: Mutex<Registries>,
    jobs: Mutex<HashMap<String, Job>>,
    report: Box<dyn Fn(Event) + Send + Sync>,
}

/// Starts the thread. It ends with the last sender of tasks.
pub fn start(place: Place, report: impl Fn(Event) + Send + Sync + 'static) -> io::Result<mpsc::UnboundedSender<Task>> {
    let (sender, mut tasks) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async {
            let shared = Shared { pool: Arc::default(), tokens: Arc::default(), patience: place.patience };
            let pulling = Pulling::new(Arc::clone(&place.store), shared.clone());
            let (registries, jobs) = (Mutex::default(), Mutex::default());
            let puller = Arc::new(Puller { place, pulling, shared, registries, jobs, report: Box::new(report) });
            while let Some(task) = tasks.recv().await {
                puller.task(task);
            }
        });
    };
    std::thread::Builder::new().name("puller".to_owned()).spawn(work)?;
    Ok(sender)
}

impl Puller {
    fn task(self: &Arc<Self>, task: Task) {
        match task {
            Task::Registries(registries) => {
                *self.registries.lock().unwrap_or_else(PoisonError::into_inner) = *registries;
                self.shared.pool.clear();
                self.shared.tokens.clear();
            }
            Task::Pull(reference) => drop(self.join(&reference)),
            Task::List(pipe) => match Sender::from_owned_fd(pipe) {
                Ok(pipe) => drop(tokio::spawn(list(Arc::clone(&self.place.store), pipe))),
                Err(error) => eprintln!("engine: a client's pipe: {error}"),
            },
            Task::Command(command, pipe) => match Sender::from_owned_fd(pipe) {
                Ok(pipe) => drop(tokio::spawn(Arc::clone(self).command(command, pipe))),
                Err(error) => eprintln!("engine: a client's pipe: {error}"),
            },
            Task::Tell(reference, pipe) => match Sender::from_owned_fd(pipe) {
                Ok(pipe) => drop(tokio::spawn(tell(self.join(&reference), pipe))),
                Err(error) => eprintln!("engine: a client's pipe: {error}"),
            },
        }
    }

    /// Lets a thread do it, and tells the client how it ended.
    async fn command(self: Arc<Self>, command: Command, mut pipe: Sender) {
        let store = Arc::clone(&self.place.store);
        let end = match tokio::task::spawn_blocking(move || command.run(&store)).await {
            Ok(Ok(outcome)) => {
                for name in outcome.named {
                    (self.report)(Event::Pulled(name));
                }
                Ended::Done(outcome.texts)
            }
            Ok(Err(error)) => Ended::Failed(describe(&error)),
            Err(_) => Ended::Failed("the engine ends".to_owned()),
        };
        send(&mut pipe, end).await;
    }

    /// The pull of an image: the one that is under way, or a new one.
    fn join(self: &Arc<Self>, reference: &Reference) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get(&reference.to_string()) {
            return job.clone();
        }
        let (sender, end) = watch::channel(None);
        let job = Job { progress: Arc::default(), end };
        jobs.insert(reference.to_string(), job.clone());
        let (puller, reference, progress) = (Arc::clone(self), reference.clone(), Arc::clone(&job.progress));
        tokio::spawn(async move {
            let end = puller.pull(&reference, &progress).await;
            // Nobody may be waiting.
            let _ = sender.send(Some(end));
        });
        job
    }

    async fn pull(&self, reference: &Reference, progress: &Arc<Progress>) -> End {
        let started = std::time::Instant::now();
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settings = Settings::new(registries, &self.place.user_data);
        let pulled = self.pulling.pull(reference, settings, progress).await;
        // Before anybody hears of it: who asks from now on begins anew, under the settings of then.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference.to_string());
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(error) => {
                let reason = describe(&error);
                (self.report)(Event::Failed(reference.clone(), reason.clone()));
                return Err(reason);
            }
        };
        let (layers, time) = (pulled.layers, started.elapsed().as_millis());
        eprintln!("engine: {reference}: pulled from {}, {layers} layers in {time} ms", pulled.from);
        (self.report)(Event::Pulled(reference.clone()));
        // A container need not wait for this.
        let store = Arc::clone(&self.place.store);
        match tokio::task::spawn_blocking(move || store.commit()).await {
            Ok(Ok(())) => Ok(pulled),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err("the engine ends".to_owned()),
        }
    }
}

/// Tells a client how far a pull is, and last how it ended. The pull goes on without it.
async fn tell(job: Job, mut pipe: Sender) {
    let Job { progress, mut end } = job;
    let mut told = None;
    loop {
        let ended = tokio::time::timeout(TICK, end.wait_for(Option::is_some)).await;
        let ended = ended.map(|ended| ended.map_or_else(|_| None, |ended| ended.clone()));
        let seen = progress.look();
        if told.as_ref() != Some(&seen) && !send(&mut pipe, PullEvent::Progress(seen.clone())).await {
            return;
        }
        told = Some(seen);
        if let Ok(ended) = ended {
            let last = match ended {
                Some(Ok(pulled)) => PullEvent::Done(pulled),
                Some(Err(reason)) => PullEvent::Failed(reason),
                None => PullEvent::Failed("the engine has ended the pull".to_owned()),
            };
            send(&mut pipe, last).await;
            return;
        }
    }
}

/// Tells a client what there is.
async fn list(store: Arc<Store>, mut pipe: Sender) {
    for image in store.list() {
        if !send(&mut pipe, image).await {
            return;
        }
    }
}

/// One line. False if nobody reads any more.
async fn send(pipe: &mut Sender, value: impl serde::Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(&value) else { return false };
    line.push(b'\n');
    pipe.write_all(&line).await.is_ok()
}
