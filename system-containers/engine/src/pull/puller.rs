//! The thread with the network: it pulls what the engine's loop and clients ask for, each image once at a time.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_config::{RegistryName, registry_spelling};
use berth_control::ANSWER_END;
use berth_control::images::{End as Ended, PullEvent, Pulled};
use berth_control::message::Registries;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::Pulling;
use super::progress::Progress;
use crate::commands::{Command, CommandError, Outcome};
use crate::export::push::{self, PushError, Pushed};
use crate::import::describe;
use crate::reference::Reference;
use crate::registry::credentials::Credentials;
use crate::registry::{Client, Patience, Settings, Shared, endpoint, logins};
use crate::store::Store;

/// How often a client hears how far a pull has come.
const TICK: Duration = Duration::from_millis(200);

/// How many archives come and go at once; another one waits.
const ARCHIVES: usize = 8;

/// What the engine's loop tells the puller.
#[derive(Debug)]
pub enum Task {
    /// This is how registries are reached from now on.
    Registries(Box<Registries>),
    /// Pull this and report it.
    Pull(Reference),
    /// The same, for a client that reads [`PullEvent`]s from this pipe.
    Tell(Reference, OwnedFd),
    /// Take this to its registry, for a client that reads [`PullEvent`]s from this pipe.
    Push(Reference, OwnedFd),
    /// Keep who pulls from a registry, or forget it, and write an [`Ended`] into this pipe.
    Login(String, Option<Credentials>, OwnedFd),
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
    /// It is not, for this reason; when the registry wants to be asked again, if it said.
    Failed(Reference, String, Option<Duration>),
}

/// What the puller works with.
pub struct Place {
    /// The image store.
    pub store: Arc<Store>,
    /// Who is logged in by hand.
    pub logins: PathBuf,
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
    archives: Arc<Semaphore>,
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
            let (archives, report) = (Arc::new(Semaphore::new(ARCHIVES)), Box::new(report));
            let puller = Arc::new(Puller { place, pulling, shared, registries, jobs, archives, report });
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
            Task::Push(reference, pipe) => match Sender::from_owned_fd(pipe) {
                Ok(pipe) => drop(tokio::spawn(tell(self.push(reference), pipe))),
                Err(error) => eprintln!("engine: a client's pipe: {error}"),
            },
            Task::Login(registry, login, pipe) => match Sender::from_owned_fd(pipe) {
                Ok(pipe) => drop(tokio::spawn(Arc::clone(self).login(registry, login, pipe))),
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

    /// What is known of registries now.
    fn settings(&self) -> Settings {
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Settings::new(registries, &self.place.user_data).with_logins(&self.place.logins)
    }

    /// A push, which nobody else has a part in.
    fn push(self: &Arc<Self>, reference: Reference) -> Job {
        let (sender, end) = watch::channel(None);
        let job = Job { progress: Arc::default(), end };
        let (puller, progress) = (Arc::clone(self), Arc::clone(&job.progress));
        tokio::spawn(async move {
            let end = puller.try_push(&reference, &progress).await;
            // Nobody may be waiting.
            let _ = sender.send(Some(end.map_err(|error| describe(&error))));
        });
        job
    }

    async fn try_push(&self, reference: &Reference, progress: &Progress) -> Result<Pulled, PushError> {
        let settings = self.settings();
        let endpoint = endpoint::endpoint(reference.registry(), reference.path().to_owned(), &settings)?;
        let client = Client::new(&self.shared, Arc::new(settings), endpoint);
        let Pushed { digest, uploaded } = push::push(&self.place.store, &client, reference, progress).await?;
        let (image, digest) = (reference.to_string(), digest.to_string());
        Ok(Pulled { image, digest, from: client.place(), layers: uploaded })
    }

    /// Keeps a login that the registry takes, or forgets one.
    async fn login(self: Arc<Self>, registry: String, login: Option<Credentials>, mut pipe: Sender) {
        let end = match self.try_login(&registry, login).await {
            Ok(()) => Ended::Done(Vec::new()),
            Err(reason) => Ended::Failed(reason),
        };
        send(&mut pipe, end).await;
    }

    async fn try_login(&self, registry: &str, login: Option<Credentials>) -> Result<(), String> {
        let name: RegistryName = registry.parse().map_err(|error| format!("{registry:?} is no registry: {error}"))?;
        let name = registry_spelling(name.as_str());
        let name = name.as_str();
        if let Some(login) = &login {
            let settings = self.settings().with_login(name, login.clone());
            let endpoint = endpoint::endpoint(name, String::new(), &settings).map_err(|error| describe(&error))?;
            // Nothing that was given before counts.
            let shared = Shared { tokens: Arc::default(), ..self.shared.clone() };
            let client = Client::new(&shared, Arc::new(settings), endpoint);
            client.log_in().await.map_err(|error| describe(&error))?;
        }
        let forgets = login.is_none();
        let was_there =
            logins::set(&self.place.logins, name, login).map_err(|error| format!("keep the login: {error}"))?;
        self.shared.tokens.clear();
        if forgets && !was_there { Err(format!("nobody is logged in to {name}")) } else { Ok(()) }
    }

    /// Lets a thread do it, and tells the client how it ended.
    async fn command(self: Arc<Self>, command: Command, mut pipe: Sender) {
        let end = match self.run(command, &pipe).await {
            Ok(Ok(outcome)) => {
                for name in outcome.named {
                    (self.report)(Event::Pulled(name));
                }
                match (outcome.texts, outcome.problems) {
                    (texts, problems) if problems.is_empty() => Ended::Done(texts),
                    (done, problems) => Ended::Partly { done, problems },
                }
            }
            Ok(Err(error)) => Ended::Failed(describe(&error)),
            Err(_) => Ended::Failed("the engine ends".to_owned()),
        };
        send(&mut pipe, end).await;
    }

    /// An error without a reason if the engine ends.
    async fn run(&self, command: Command, pipe: &Sender) -> Result<Result<Outcome, CommandError>, ()> {
        let store = Arc::clone(&self.place.store);
        if !command.is_long() {
            return tokio::task::spawn_blocking(move || command.run(&store)).await.map_err(drop);
        }
        let place = Arc::clone(&self.archives).acquire_owned().await.map_err(drop)?;
        let client = pipe.as_fd().try_clone_to_owned().ok();
        let (sender, end) = oneshot::channel();
        // Not one of the threads that pulls need, too: a client takes as long as it likes.
        let work = move || {
            // Nobody may be waiting.
            let _ = sender.send(command.run_for(&store, client));
            drop(place);
        };
        std::thread::Builder::new().name("archive".to_owned()).spawn(work).map_err(drop)?;
        end.await.map_err(drop)
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
        let pulled = self.pulling.pull(reference, self.settings(), progress).await;
        // Before anybody hears of it: who asks from now on begins anew, under the settings of then.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference.to_string());
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(error) => {
                let reason = describe(&error);
                (self.report)(Event::Failed(reference.clone(), reason.clone(), error.retry_after()));
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
    // Whoever does not read any more needs no end.
    let _ = pipe.write_all(ANSWER_END).await;
}

/// One line. False if nobody reads any more.
async fn send(pipe: &mut Sender, value: impl serde::Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(&value) else { return false };
    line.push(b'\n');
    pipe.write_all(&line).await.is_ok()
}
