//! The engine's loop with PID 1's end of the channel in the test's hands.

use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;

use berth_control::channel::{Channel, ChannelError};
use berth_control::images::{Answer, Query};
use berth_control::message::{Declaration, FromInit, Notice, PreparedImage, Registries, Reply, Request, ToInit};
use berth_engine::merged::Merged;
use berth_engine::prepare::Folders;
use berth_engine::registry::Patience;
use berth_engine::service::{self, Looks, Paths, ServiceError};
use berth_engine::volumes::Places;
use rustix::event::{PollFd, PollFlags};

use super::{Machine, Tar};

/// The content of a file of the uppermost layer.
pub fn content(image: &PreparedImage, path: &str) -> Option<Vec<u8>> {
    let layer = image.layers[0].path.clone();
    let file = std::fs::File::open(&layer).unwrap();
    Merged::new(vec![(layer, file)]).unwrap().read(path, u64::MAX).unwrap()
}

/// PID 1 as the engine sees it.
pub struct Init {
    /// PID 1's end.
    pub channel: Channel,
    engine: Option<JoinHandle<Result<(), ServiceError>>>,
    declared: Vec<Declaration>,
    /// What it tells of registries.
    pub registries: Registries,
}

/// Nothing is reached: nobody listens where the proxies are.
pub const OFFLINE: &str = "[proxy]\nhttp = 'http://127.0.0.1:1'\nhttps = 'http://127.0.0.1:1'\n";

pub fn registries(text: &str) -> Registries {
    let configuration: berth_config::Configuration = toml::from_str(text).unwrap();
    let berth_config::Configuration { registries, trust, proxy, images, .. } = configuration;
    Registries { registries, trust, proxy, images }
}

pub fn paths(machine: &Machine) -> Paths {
    let user_data = machine.path("user-data");
    let places = Places { volumes: machine.path("volumes"), user_data: user_data.clone() };
    let folders = Folders { containers: machine.path("containers"), places };
    Paths {
        images: machine.path("images"),
        archives: user_data.join("images"),
        folders,
        boot: "boot".to_owned(),
        socket: machine.path("engine.sock"),
        patience: Patience::default(),
        looks: Looks::default(),
    }
}

impl Init {
    pub fn start(machine: &Machine, declared: &[(&str, &str)]) -> Self {
        Self::start_at(paths(machine), declared)
    }

    pub fn start_at(paths: Paths, declared: &[(&str, &str)]) -> Self {
        let (channel, theirs) = Channel::pair().unwrap();
        let engine = std::thread::spawn(move || service::run(theirs, paths));
        let declared_later = Vec::new();
        let registries = registries(OFFLINE);
        let mut init = Self { channel, engine: Some(engine), declared: declared_later, registries };
        init.declare(declared);
        init
    }

    pub fn declare(&mut self, declared: &[(&str, &str)]) {
        let declaration =
            |(name, container): &(&str, &str)| Declaration::new(name, serde_json::from_str(container).unwrap());
        self.declared = declared.iter().map(declaration).collect();
    }

    /// One container a page.
    fn page_after(&self, after: &str) -> Reply {
        let mut rest: Vec<_> = self.declared.iter().filter(|one| one.name.as_str() > after).cloned().collect();
        rest.sort_by(|left, right| left.name.cmp(&right.name));
        let next = rest.first().filter(|_| rest.len() > 1).map(|first| first.name.clone());
        rest.truncate(1);
        Reply::Declared { declarations: rest, next }
    }

    /// The next request but Declared and Ready, which are answered here.
    pub fn next(&self) -> Request {
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        loop {
            let mut events = [PollFd::new(&self.channel, PollFlags::IN)];
            assert_ne!(rustix::event::poll(&mut events, Some(&minute)).unwrap(), 0, "the engine is silent");
            let (message, descriptors): (ToInit, Vec<OwnedFd>) = self.channel.receive().unwrap();
            let reply = match &message.request {
                Request::Declared { after } => self.page_after(after),
                Request::Registries => Reply::Registries(Box::new(self.registries.clone())),
                _ => Reply::Done,
            };
            self.channel.send(&FromInit::Reply { id: message.id, reply }, &[]).unwrap();
            match message.request {
                Request::Declared { .. } | Request::Registries | Request::Ready => {}
                // That it is being pulled.
                Request::PrepareDelayed { retry_s: None, .. } => {}
                Request::PreparedOnSheet { name } => {
                    let sheet = std::fs::File::from(descriptors.into_iter().next().unwrap());
                    return Request::Prepared { name, image: serde_json::from_reader(sheet).unwrap() };
                }
                request => return request,
            }
        }
    }

    pub fn prepared(&self, expected: &str) -> PreparedImage {
        match self.next() {
            Request::Prepared { name, image } if name == expected => *image,
            other => panic!("{other:?}"),
        }
    }

    /// That an image does not come for now.
    pub fn failed(&self, expected: &str) -> String {
        match self.next() {
            Request::PrepareDelayed { name, reason, retry_s: Some(_) } if name == expected => reason,
            other => panic!("{other:?}"),
        }
    }

    pub fn notify(&self, notice: Notice) {
        self.channel.send(&FromInit::Notice(notice), &[]).unwrap();
    }

    pub fn shut_down(mut self, machine: &Machine) {
        self.notify(Notice::ShuttingDown);
        self.engine.take().unwrap().join().unwrap().unwrap();
        // A process would be gone now; here the workers' threads may hold the store a little longer.
        let lock = std::fs::File::open(machine.path("images/lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        while !matches!(self.channel.receive::<ToInit>(), Err(ChannelError::Closed | ChannelError::System { .. })) {}
    }
}

/// A client's query, and all that comes of it.
pub fn ask(machine: &Machine, query: &Query) -> (Answer, String) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(machine.path("engine.sock")).unwrap()).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let channel = Channel::from(socket);
    channel.send(query, &[writer.as_fd()]).unwrap();
    drop(writer);
    let (answer, _) = channel.receive::<Answer>().unwrap();
    let text = std::io::read_to_string(std::fs::File::from(reader)).unwrap();
    (answer, text)
}

/// A layer with an account and some data.
pub fn layer() -> Vec<u8> {
    let passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n";
    Tar::default()
        .directory("etc", 0o755)
        .file("etc/passwd", passwd)
        .directory("data", 0o750)
        .file("data/a", b"1")
        .finish()
}
