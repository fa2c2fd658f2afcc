//! A machine for the tests: the server on a socket in a temporary directory, and the other end of its channel.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use berth_config::ApiPart;
use berth_control::channel::{Channel, ChannelError};
use berth_control::dbus::{Containers1Proxy, Machine1Proxy};
use berth_control::message::{
    Container, ContainerState, ExecutionEnd, FromInit, Kind, Link, Machine, MachineState, Network, Notice, Port, Reply,
    Request, SessionStream, Step, ToClient, ToInit,
};
use berth_control_server::init::Init;
use berth_control_server::server::Server;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A running server.
pub struct Api {
    pub directory: TempDir,
    pub asked: Arc<Mutex<Vec<Request>>>,
    pub hostname: Arc<Mutex<String>>,
    init: Arc<Channel>,
    serving: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Api {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let init = Init::start(theirs).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let hostname = Arc::new(Mutex::new(machine().hostname));
        let ours = Arc::new(ours);
        std::thread::spawn({
            let (ours, asked, hostname) = (Arc::clone(&ours), Arc::clone(&asked), Arc::clone(&hostname));
            move || answer(&ours, &asked, &hostname)
        });
        let socket = directory.path().join("control.sock");
        let server =
            Server::listen(&socket, directory.path().join("logs.sock"), directory.path().join("engine.sock"), init)
                .unwrap();
        let serving = tokio::spawn(server.serve());
        Self { directory, asked, hostname, init: ours, serving }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    pub async fn connect(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address().as_str()).p2p().build().await.unwrap()
    }

    pub async fn proxies(&self) -> (Machine1Proxy<'static>, Containers1Proxy<'static>) {
        let connection = self.connect().await;
        (Machine1Proxy::new(&connection).await.unwrap(), Containers1Proxy::new(&connection).await.unwrap())
    }

    /// Gives the server the socket of a container that may use these parts, and returns its path.
    pub fn grant(&self, container: &str, parts: &[ApiPart], uid_base: u32) -> PathBuf {
        let path = self.directory.path().join(format!("{container}.sock"));
        let listener = berth_control::listener::listen_on(&path, nix::sys::socket::SockType::Stream).unwrap();
        self.grant_listener(container, parts, uid_base, &listener);
        path
    }

    pub fn grant_listener(&self, container: &str, parts: &[ApiPart], uid_base: u32, listener: &OwnedFd) {
        let notice = Notice::ApiSocket { container: container.into(), parts: parts.to_vec(), uid_base };
        self.init.send(&FromInit::Notice(notice), &[listener.as_fd()]).unwrap();
    }

    /// Fails when the server has not read what was sent before.
    pub fn try_notify(&self, notice: Notice) -> Result<(), ChannelError> {
        self.init.send(&FromInit::Notice(notice), &[])
    }

    pub fn notify(&self, notice: Notice) {
        self.init.send(&FromInit::Notice(notice), &[]).unwrap();
    }
}

fn sheet(bytes: &[u8]) -> std::fs::File {
    let sheet = tempfile::tempfile().unwrap();
    sheet.write_all_at(bytes, 0).unwrap();
    sheet
}

/// The configuration in force, longer than a message of the channel.
pub fn configuration() -> String {
    format!("hostname = \"dock1\"\n{}", "# nothing\n".repeat(30_000))
}

/// What a request is answered with in a file of memory.
fn answer_in_memory(request: &Request, web: Option<&Container>) -> Option<Vec<u8>> {
    Some(match request {
        Request::Containers => {
            let all: Vec<_> = std::iter::once(container("control", Kind::System)).chain(web.cloned()).collect();
            berth_control::listing::write(&all)
        }
        Request::Configuration => configuration().into_bytes(),
        Request::Audit => b"{}".to_vec(),
        Request::Definition { name } => format!("{{\"definition\":{{\"image\":\"{name}\"}}}}").into_bytes(),
        _ => return None,
    })
}

/// Answers until the other side closes. `web` runs until it is told to stop, and has ended with 3 then; it may be removed. A container named `stuck` never gets an answer; a session is an open file, and for
/// a container named `half` there is none.
fn answer(channel: &Channel, asked: &Mutex<Vec<Request>>, hostname: &Mutex<String>) {
    let mut web = container("web", Kind::User);
    let mut removed = false;
    loop {
        let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::NONE).unwrap();
        let ToInit { id, request } = match channel.receive() {
            Ok((message, _)) => message,
            Err(ChannelError::WouldBlock) => continue,
            Err(_) => return,
        };
        asked.lock().unwrap().push(request.clone());
        if let Some(bytes) = answer_in_memory(&request, (!removed).then_some(&web)) {
            let sheet = sheet(&bytes);
            if channel.send(&FromInit::Reply { id, reply: Reply::Done }, &[sheet.as_fd()]).is_err() {
                return;
            }
            continue;
        }
        let reply = match request {
            Request::Machine => {
                let hostname = hostname.lock().unwrap().clone();
                Reply::Machine(Box::new(Machine { hostname, ..machine() }))
            }
            Request::Timeline => Reply::Timeline(timeline()),
            Request::Stop { name, .. } if name == "web" => {
                (web.state, web.exit_code) = (ContainerState::Stopped, 3);
                Reply::Done
            }
            Request::Remove { .. } => {
                removed = true;
                Reply::Done
            }
            Request::Start { name } if name == "stuck" => continue,
            Request::Start { name } if name != "web" => {
                Reply::Refused { reason: format!("there is no container named '{name}'") }
            }
            Request::Create { creation, session: Some(_) } if creation.name != "half" => {
                let null = std::fs::File::open("/dev/null").unwrap();
                if channel.send(&FromInit::Reply { id, reply: Reply::Done }, &[null.as_fd()]).is_err() {
                    return;
                }
                continue;
            }
            Request::Attach { name, .. } if name == "web" => {
                let session = session();
                if channel.send(&FromInit::Reply { id, reply: Reply::Done }, &[session.as_fd()]).is_err() {
                    return;
                }
                continue;
            }
            Request::Instances { name } => Reply::Names(vec![format!("{name}-1"), format!("{name}-2")]),
            _ => Reply::Done,
        };
        if channel.send(&FromInit::Reply { id, reply }, &[]).is_err() {
            return;
        }
    }
}

/// The client's end of a session with a container that has printed a line and ended.
fn session() -> Channel {
    let (ours, theirs) = Channel::pair().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"hello\n").unwrap();
    let output = ToClient::Stream(SessionStream::Output);
    ours.send(&output, &[reader.as_fd()]).unwrap();
    ours.send(&ToClient::Running, &[]).unwrap();
    ours.send(&ToClient::Ended(ExecutionEnd { exit_code: 3, reason: String::new() }), &[]).unwrap();
    theirs
}

pub fn machine() -> Machine {
    Machine {
        hostname: "dock1".into(),
        version: "0.1.0".into(),
        kernel: "6.12.1".into(),
        slot: "a".into(),
        state: MachineState::Ready,
        uptime_ms: 12_345,
        problems: vec!["no user data was found".into()],
        links: vec![Link {
            name: "eth0".into(),
            mac: "52:54:00:12:34:56".into(),
            carrier: true,
            addresses: vec!["10.0.2.15/24".into()],
            missing: vec!["no DHCP server offers an address".into()],
        }],
        networks: vec![Network {
            name: "back".into(),
            driver: "bridge".into(),
            link: "berth1".into(),
            subnets: vec!["10.88.0.0/24".into(), "fd00:88::/64".into()],
            gateways: vec!["10.88.0.1".into(), "fd00:88::1".into()],
            internal: true,
            isolated: false,
        }],
        watchdog: "iTCO_wdt, 60 s".into(),
        state_storage: "/dev/vda4".into(),
        configuration_sources: vec!["berth.toml".into()],
    }
}

pub fn timeline() -> Vec<Step> {
    vec![Step {
        name: "early mounts".into(),
        start_us: 900_000,
        duration_us: 1_500,
        outcome: String::new(),
        failed: false,
    }]
}

pub fn container(name: &str, kind: Kind) -> Container {
    Container {
        name: name.into(),
        kind,
        state: ContainerState::Running,
        health: berth_control::message::Health::None,
        image: "nginx:1.27".into(),
        reason: String::new(),
        pid: 123,
        restarts: 0,
        started_us: 1_000_000,
        exit_code: -1,
        addresses: vec!["172.20.0.2".into()],
        ports: vec![Port {
            host_address: String::new(),
            host_port: 8080,
            container_port: 80,
            further_ports: 0,
            protocol: "tcp".into(),
        }],
    }
}
