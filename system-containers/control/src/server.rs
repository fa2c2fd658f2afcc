//! The socket: who may connect, and one task for each who did.
//!
//! A client's task passes PID 1's notices on as signals, once the client has asked for signals. The tasks share the
//! connection to PID 1 and nothing else, so that one that waits for its client holds up no other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_control::dbus::{Container, OBJECT_PATH};
use berth_control::message::Notice;
use nix::sys::socket::SockType;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, oneshot};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid, OwnedGuid};

use crate::Error;
use crate::bus::{self, Bus};
use crate::containers::Containers1;
use crate::images::Images1;
use crate::init::Init;
use crate::logs::Logs;
use crate::machine::Machine1;
use crate::transport::Transport;

/// The most clients at once; a further one waits in the listen queue. Each can make us hold about 2 MiB by flooding.
const MAXIMUM_CLIENTS: usize = 32;

/// How long a client may take to authenticate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What to wait after a failed accept(2): out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening control API.
pub struct Server {
    listener: UnixListener,
    guid: OwnedGuid,
    init: Arc<Init>,
    logs: Logs,
    engine_socket: PathBuf,
}

impl Server {
    /// Listens on this path, root only. A socket that an earlier run left there is replaced.
    pub fn listen(path: &Path, logs_socket: PathBuf, engine_socket: PathBuf, init: Arc<Init>) -> Result<Self, Error> {
        let listener = bind(path).map_err(|source| Error::Listen { path: path.to_owned(), source })?;
        let guid = Guid::generate().into();
        Ok(Self { listener, guid, init, logs: Logs { socket_path: logs_socket }, engine_socket })
    }

    /// Serves for ever.
    pub async fn serve(self) {
        let server = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAXIMUM_CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match server.listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        server.client(stream).await;
                        drop(place);
                    });
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
    async fn client(&self, stream: UnixStream) {
        let Ok(credentials) = stream.peer_cred() else { return };
        let uid = credentials.uid();
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return;
        }
        let (subscription, begun) = Subscription::new(Arc::clone(&self.init));
        let subscription = Arc::new(subscription);
        let connecting = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.connect(stream, uid, &subscription));
        let Ok(Ok(connection)) = connecting.await else { return };
        tokio::select! {
            () = connection.closed() => {}
            _ = pass_on(begun, &connection) => {}
        }
    }

    async fn connect(
        &self,
        stream: UnixStream,
        uid: u32,
        subscription: &Arc<Subscription>,
    ) -> zbus::Result<Connection> {
        let machine = Machine1 { init: Arc::clone(&self.init), subscription: Arc::clone(subscription) };
        let containers = Containers1 { init: Arc::clone(&self.init), logs: self.logs.clone() };
        let images = Images1 { socket_path: self.engine_socket.clone() };
        let bus = Bus { subscription: Arc::clone(subscription), id: self.guid.to_string(), uid };
        let connection = zbus::connection::Builder::socket(Transport::new(stream, uid))
            .server(&self.guid)
            .p2p()
            .validate_bodies()
            .serve_at(OBJECT_PATH, machine)
            .serve_at(OBJECT_PATH, containers)
            .serve_at(OBJECT_PATH, images)
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
    init: Arc<Init>,
    sender: Mutex<Option<oneshot::Sender<broadcast::Receiver<Notice>>>>,
}

impl Subscription {
    fn new(init: Arc<Init>) -> (Self, oneshot::Receiver<broadcast::Receiver<Notice>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { init, sender: Mutex::new(Some(sender)) }, receiver)
    }

    /// From now on it does. The notices are kept from this moment, so that nothing is lost between this call and the
    /// client's next one.
    pub fn begin(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody takes it when the client is being disconnected.
            let _ = sender.send(self.init.notices());
        }
    }
}

/// Sends the notices as signals, from the moment the client subscribes. Ends with the first that cannot be sent.
async fn pass_on(begun: oneshot::Receiver<broadcast::Receiver<Notice>>, connection: &Connection) -> zbus::Result<()> {
    let Ok(mut notices) = begun.await else { return Ok(()) };
    let emitter = SignalEmitter::new(connection, OBJECT_PATH)?;
    loop {
        match notices.recv().await {
            Ok(Notice::ContainerChanged(container)) => {
                Containers1::container_changed(&emitter, Container::from(*container)).await?;
            }
            Ok(Notice::MachineChanged(state)) => {
                Machine1::machine_changed(&emitter, state).await?;
                let machine = connection.object_server().interface::<_, Machine1>(OBJECT_PATH).await?;
                machine.get().await.state_changed(&emitter).await?;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(count)) => Machine1::missed(&emitter, count).await?,
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
