//! The sockets, the machine's and those of user containers: who may connect, and one task for each who did.
//!
//! A client's task passes PID 1's notices on as signals, once the client has asked for signals. The tasks share the
//! connection to PID 1 and nothing else, so that one that waits for its client holds up no other.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_config::ApiPart;
use berth_control::dbus::{ApiError, Container, OBJECT_PATH};
use berth_control::message::Notice;
use nix::sys::socket::SockType;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid, OwnedGuid};

use crate::Error;
use crate::bus::{self, Bus};
use crate::caller::{Access, Caller};
use crate::containers::Containers1;
use crate::door::Door;
use crate::ends::Ends;
use crate::images::{Engine, Images1};
use crate::init::{Grant, Init};
use crate::logs::Logs;
use crate::machine::Machine1;
use crate::places::{Activity, Place, Places};
use crate::transport::Transport;
use crate::volumes::Volumes1;

/// The most clients at once; a further one waits for the place of another. Each can make us hold about 2 MiB by flooding, and
/// the memory that `container.toml` allows is for these and for those of all containers.
const MAXIMUM_CLIENTS: usize = 32;

/// The most clients at once of all containers.
const CLIENTS_OF_CONTAINERS: usize = 24;

/// The most clients at once of one container, so that it takes no place from others.
const CLIENTS_OF_A_CONTAINER: usize = 4;

/// How long a client may take to authenticate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What to wait after a failed accept(2): out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening control API.
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
    guid: OwnedGuid,
    init: Arc<Init>,
    logs: Logs,
    engine_socket: PathBuf,
}

/// What every client's task shares.
struct Inner {
    guid: OwnedGuid,
    init: Arc<Init>,
    logs: Logs,
    engine_socket: PathBuf,
    door: Door,
}

impl Server {
    /// Listens on this path, root only. A socket that an earlier run left there is replaced.
    pub fn listen(path: &Path, logs_socket: PathBuf, engine_socket: PathBuf, init: Arc<Init>) -> Result<Self, Error> {
        let listener = bind(path).map_err(|source| Error::Listen { path: path.to_owned(), source })?;
        let guid = Guid::generate().into();
        let logs = Logs { socket_path: logs_socket };
        Ok(Self { path: path.to_owned(), listener, guid, init, logs, engine_socket })
    }

    /// Serves for ever.
    pub async fn serve(self) {
        let Self { path, listener, guid, init, logs, engine_socket } = self;
        let server = Arc::new(Inner { guid, init, logs, engine_socket, door: Door::default() });
        let granted = server.init.grants();
        let places = Places::new(MAXIMUM_CLIENTS);
        tokio::select! {
            () = Arc::clone(&server).accept(listener, Arc::new(Access::Everything), 0, places) => {}
            () = Arc::clone(&server).serve_containers(granted) => {}
            () = server.give_signs(&path) => {}
        }
    }
}

impl Inner {
    /// Serves what comes over the sockets in user containers, each with what it may.
    async fn serve_containers(self: Arc<Self>, granted: Option<mpsc::UnboundedReceiver<Grant>>) {
        // A container's clients go with its entry.
        let mut served: HashMap<String, (u64, JoinSet<()>)> = HashMap::new();
        let all = Arc::new(Places::new(CLIENTS_OF_CONTAINERS));
        let Some(mut granted) = granted else { return std::future::pending().await };
        while let Some(grant) = granted.recv().await {
            let (container, parts, uid_base, listener) = match grant {
                Grant::Open { container, parts, uid_base, listener } => (container, parts, uid_base, listener),
                Grant::Close { container } => {
                    served.remove(&container);
                    continue;
                }
            };
            let number = nix::sys::stat::fstat(&listener).map(|stat| stat.st_ino).unwrap_or_default();
            if served.get(&container).is_some_and(|(known, _)| *known == number) {
                continue;
            }
            match UnixListener::from_std(std::os::unix::net::UnixListener::from(listener)) {
                Ok(listener) => {
                    let access = Arc::new(Access::Parts { container: container.clone(), parts });
                    let mut task = JoinSet::new();
                    let places = Places::of(&all, CLIENTS_OF_A_CONTAINER);
                    task.spawn(Arc::clone(&self).accept(listener, access, uid_base, places));
                    served.insert(container, (number, task));
                }
                Err(error) => eprintln!("berth-control: serve container {container}: {error}"),
            }
        }
        std::future::pending().await
    }

    /// Gives PID 1 a sign of life whenever it asks, if a client would get in. If not, PID 1 starts this program again.
    async fn give_signs(&self, path: &Path) {
        loop {
            self.init.asked_for_sign().await;
            self.door.is_open(path).await;
            // It asks again.
            let _ = self.init.give_sign().await;
        }
    }

    async fn accept(self: Arc<Self>, listener: UnixListener, access: Arc<Access>, uid_base: u32, places: Places) {
        let is_of_machine = matches!(*access, Access::Everything);
        let mut clients = JoinSet::new();
        loop {
            while clients.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    if is_of_machine && self.door.lets_in(&stream) {
                        continue;
                    }
                    let (server, access) = (Arc::clone(&self), Arc::clone(&access));
                    let place = if is_of_machine { self.door.wait(places.take()).await } else { places.take().await };
                    clients.spawn(async move { server.client(stream, access, uid_base, &place).await });
                }
                Err(error) => {
                    eprintln!("berth-control: accept a client: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one client until it goes. What goes wrong with it is its own affair and not logged: a client could fill
    /// the log.
    async fn client(&self, stream: UnixStream, access: Arc<Access>, uid_base: u32, place: &Place) {
        let Ok(credentials) = stream.peer_cred() else { return };
        // As it is in the client's user namespace, where it authenticates itself by it.
        let Some(uid) = credentials.uid().checked_sub(uid_base) else { return };
        let is_own = uid == 0 || uid == nix::unistd::geteuid().as_raw();
        if matches!(*access, Access::Everything) && !is_own {
            return;
        }
        let caller = Caller::new(Arc::clone(&self.init), access);
        let watches = caller.clone();
        let (subscription, begun) = Subscription::new(caller.clone(), Arc::clone(&place.activity));
        let subscription = Arc::new(subscription);
        let stream = Arc::new(stream);
        let transport = Transport::new(Arc::clone(&stream), uid, Arc::clone(&place.activity));
        let ends = Ends::default();
        let connecting = self.connect(transport, uid, caller, (&subscription, &ends));
        let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await else { return };
        tokio::select! {
            () = connection.closed() => {}
            _ = pass_on(begun, &connection, &watches) => {}
            () = place.activity.is_to_leave() => {
                // Whatever is under way on it ends with this. ENOTCONN: the client has gone by itself.
                let _ = nix::sys::socket::shutdown(stream.as_raw_fd(), nix::sys::socket::Shutdown::Both);
            }
        }
        ends.end();
    }

    async fn connect(
        &self,
        transport: Transport,
        uid: u32,
        caller: Caller,
        (subscription, ends): (&Arc<Subscription>, &Ends),
    ) -> zbus::Result<Connection> {
        let machine = Machine1 { init: caller.clone(), subscription: Arc::clone(subscription) };
        let engine = Engine { access: caller.clone(), socket_path: self.engine_socket.clone() };
        let (logs, ends) = (self.logs.clone(), ends.clone());
        let containers = Containers1 { init: caller, logs, engine: engine.clone(), ends };
        let bus = Bus { subscription: Arc::clone(subscription), id: self.guid.to_string(), uid };
        let connection = zbus::connection::Builder::socket(transport)
            .server(&self.guid)
            .p2p()
            .validate_bodies()
            .serve_at(OBJECT_PATH, machine)
            .serve_at(OBJECT_PATH, containers)
            .serve_at(OBJECT_PATH, Images1(engine.clone()))
            .serve_at(OBJECT_PATH, Volumes1(engine))
            .serve_at(bus::PATH, bus)
            .build()
            .await?;
        // The sender of signals: clients that take us for a bus sort signals by it. Not in the builder, or zbus would
        // drop the calls to org.freedesktop.DBus as meant for another.
        connection.set_unique_name(bus::SERVER_NAME)?;
        Ok(connection)
    }
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let listener = berth_control::listener::listen_on(path, SockType::Stream)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(listener))
}

/// Whether a client wants signals.
pub struct Subscription {
    init: Caller,
    activity: Arc<Activity>,
    sender: Mutex<Option<oneshot::Sender<broadcast::Receiver<Notice>>>>,
}

impl Subscription {
    fn new(init: Caller, activity: Arc<Activity>) -> (Self, oneshot::Receiver<broadcast::Receiver<Notice>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { init, activity, sender: Mutex::new(Some(sender)) }, receiver)
    }

    /// From now on it does. The notices are kept from this moment, so that nothing is lost between this call and the
    /// client's next one.
    pub fn begin(&self) -> Result<(), ApiError> {
        self.init.check(ApiPart::Events)?;
        self.activity.subscribes();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody takes it when the client is being disconnected.
            let _ = sender.send(self.init.notices());
        }
        Ok(())
    }
}

/// Sends the notices as signals, from the moment the client subscribes. Ends with the first that cannot be sent.
async fn pass_on(
    begun: oneshot::Receiver<broadcast::Receiver<Notice>>,
    connection: &Connection,
    caller: &Caller,
) -> zbus::Result<()> {
    let Ok(mut notices) = begun.await else { return Ok(()) };
    let sees_machine = caller.check(ApiPart::MachineDescribe).is_ok();
    // Told once more than it changes, rather than once less.
    let mut hostname = None;
    let emitter = SignalEmitter::new(connection, OBJECT_PATH)?;
    loop {
        match notices.recv().await {
            Ok(Notice::ContainerChanged(container)) => {
                Containers1::container_changed(&emitter, Container::from(*container)).await?;
            }
            Ok(Notice::ContainerRemoved(container)) => {
                Containers1::container_removed(&emitter, Container::from(*container)).await?;
            }
            Ok(Notice::MachineChanged(state)) => {
                Machine1::machine_changed(&emitter, state).await?;
                if !sees_machine {
                    continue;
                }
                let machine = connection.object_server().interface::<_, Machine1>(OBJECT_PATH).await?;
                let machine = machine.get().await;
                machine.state_changed(&emitter).await?;
                let name = hostname_now(caller).await;
                if name.is_some() && name != hostname {
                    machine.hostname_changed(&emitter).await?;
                    hostname = name;
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(count)) => Machine1::missed(&emitter, count).await?,
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

/// The machine's name, if PID 1 says it.
async fn hostname_now(caller: &Caller) -> Option<String> {
    caller.machine().await.ok().map(|machine| machine.hostname)
}
