//! What the tests share: network namespaces with other machines in them, and PID 1's end of the channel.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod bars;
pub mod chrony;
pub mod kea;
pub mod lan;
pub mod memory;
pub mod name_server;
pub mod router;
pub mod sctp;
pub mod seen;
pub mod site;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_config::{Membership, Networking};
use berth_control::channel::{CHANNEL_VARIABLE, Channel, ChannelError};
use berth_control::message::{Attachment, FromInit, Link, Notice, Port, Reply, Request, ToInit};
pub use berth_tests::skips::skip;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

/// Everything here is local; what takes longer has failed, on a machine that does much else too.
pub const PATIENCE: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// `false`, and says so, where the test cannot run.
pub fn possible(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| {
            !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|place| Path::new(place).join(program).exists())
        })
        .collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {missing:?}"));
    } else if !nix::unistd::Uid::effective().is_root() {
        skip("needs root to make network namespaces");
    } else {
        return true;
    }
    false
}

/// Runs a command line and returns what it printed.
pub fn run(line: &str) -> String {
    let output = try_run(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command line.
pub fn try_run(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().unwrap()
}

/// Waits until it is so. Only for what sends no event, such as another program's files.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A network namespace that ends with the test.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        let name = format!("nettest-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Self { name }
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// Runs a command line in it.
    pub fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    pub fn try_run(&self, line: &str) -> Output {
        try_run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Starts a program in it that ends with the value.
    pub fn start(&self, program: &[&str]) -> Program {
        let child = Command::new("ip").args(["netns", "exec", &self.name]).args(program).stdin(Stdio::null()).spawn();
        Program { child: child.unwrap() }
    }

    /// Does something in a thread that is in it. Sockets stay in the namespace they were made in.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Where it can be opened.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A cable between two namespaces.
    pub fn connect(&self, link: &str, other: &Self, other_link: &str) {
        self.ip(&format!("link add {link} type veth peer name {other_link} netns {}", other.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        try_run(&format!("ip netns del {}", self.name));
    }
}

/// A program that is ended when the value is dropped.
pub struct Program {
    pub child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

/// The service in a namespace of its own, and PID 1's end of its channel.
pub struct Machine {
    pub namespace: Namespace,
    pub state: tempfile::TempDir,
    pub network: Networking,
}

impl Machine {
    pub fn new(configuration: &str) -> Self {
        let network = networking(configuration);
        // In memory, as /run is.
        let state = tempfile::tempdir_in("/dev/shm").unwrap();
        // What a namespace of a booted machine has not: the loopback is for the service to set up.
        let namespace = Namespace::new();
        namespace.ip("link set lo down");
        Self { namespace, state, network }
    }

    /// Lets the service's own questions about names go to itself from its next start on, as on a booted machine.
    pub fn ask_itself(&self) {
        let run = self.state.path().join("run");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
    }

    /// Starts the service and answers it as PID 1 does.
    pub fn start(&self) -> Running {
        let (ours, theirs) = Channel::pair().unwrap();
        let inherited = nix::unistd::dup(theirs.as_fd()).unwrap();
        drop(theirs);
        let run = self.state.path().join("run");
        let state = self.state.path().join("state");
        fs::create_dir_all(&run).unwrap();
        fs::create_dir_all(&state).unwrap();
        // Directories of its own in place of the machine's.
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; \
             mkdir -p /run/berth /var/lib/berth/network; mount --bind {} /run/berth; \
             mount --bind {} /var/lib/berth/network; \
             [ ! -e /run/berth/resolv.conf ] || mount --bind /run/berth/resolv.conf /etc/resolv.conf; exec {}",
            run.display(),
            state.display(),
            env!("CARGO_BIN_EXE_berth-network"),
        );
        let child = Command::new("ip")
            // Its name is the machine's own, which a test may change.
            .args(["netns", "exec", &self.namespace.name, "unshare", "--uts", "sh", "-c", &script])
            .env(CHANNEL_VARIABLE, inherited.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        drop(inherited);
        Running {
            program: Program { child },
            channel: ours,
            network: self.network.clone(),
            run,
            links: Vec::new(),
            resolv_conf: BTreeMap::new(),
            started: Instant::now(),
        }
    }
}

/// What a configuration file says of networks.
pub fn networking(configuration: &str) -> Networking {
    let loaded = berth_config::load(&[berth_config::Source::new("test.toml", configuration)]);
    loaded.unwrap_or_else(|mistakes| panic!("{mistakes:?}")).configuration.networking()
}

/// A container on the default network.
pub fn wanted(name: &str, ports: &[Port]) -> Attachment {
    Attachment {
        name: name.to_owned(),
        service: name.to_owned(),
        networks: vec![("default".parse().unwrap(), Membership::default())],
        ports: ports.to_vec(),
        serving: true,
        ..Attachment::default()
    }
}

/// The same container on other networks: names, each with the keys of a membership or none.
pub fn on(wanted: Attachment, networks: &[(&str, &str)]) -> Attachment {
    let membership = |(network, keys): &(&str, &str)| (network.parse().unwrap(), toml::from_str(keys).unwrap());
    Attachment { networks: networks.iter().map(membership).collect(), ..wanted }
}

/// A running service.
pub struct Running {
    pub program: Program,
    channel: Channel,
    pub network: Networking,
    pub run: PathBuf,
    /// As last reported.
    pub links: Vec<Link>,
    /// The text for each container's /etc/resolv.conf, as last told.
    pub resolv_conf: BTreeMap<String, String>,
    pub started: Instant,
}

impl Running {
    /// Answers requests until one is as wanted.
    pub fn wait<T>(&mut self, what: &str, wanted: impl FnMut(&Request) -> Option<T>) -> T {
        self.wait_or_end(what, wanted).unwrap_or_else(|| panic!("the service has ended before there was {what}"))
    }

    /// The same; `None` if the service has ended before.
    pub fn wait_or_end<T>(&mut self, what: &str, mut wanted: impl FnMut(&Request) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "did not come: {what}; links: {:?}", self.links);
            match self.next(left) {
                Ok(Some(request)) => {
                    if let Some(found) = wanted(&request) {
                        return Some(found);
                    }
                }
                Ok(None) => {}
                Err(_ended) => return None,
            }
        }
    }

    /// Nothing if the time is over before.
    fn next(&mut self, patience: Duration) -> Result<Option<Request>, ChannelError> {
        let message = loop {
            match self.channel.receive::<ToInit>() {
                Ok((message, _)) => break message,
                Err(ChannelError::WouldBlock) => {}
                Err(ended @ (ChannelError::Closed | ChannelError::System { .. })) => return Err(ended),
                Err(error) => panic!("{error}"),
            }
            let mut waiting = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
            if poll(&mut waiting, PollTimeout::try_from(patience).unwrap()).unwrap() == 0 {
                return Ok(None);
            }
        };
        let reply = match &message.request {
            Request::NetworkConfiguration => Reply::NetworkConfiguration(Box::new(self.network.clone())),
            _ => Reply::Done,
        };
        if let Request::Links { links } = &message.request {
            self.links.clone_from(links);
        }
        if let Request::NetworkAttached { name, resolv_conf, .. } = &message.request {
            self.resolv_conf.insert(name.clone(), resolv_conf.clone());
        }
        // What it has said before its end counts; the end is seen when there is nothing more to read.
        let _ended = self.channel.send(&FromInit::Reply { id: message.id, reply }, &[]);
        Ok(Some(message.request))
    }

    pub fn notify(&self, notice: Notice, descriptors: &[BorrowedFd<'_>]) {
        // Whoever waits for what comes of it sees whether it has ended.
        let _ended = self.channel.send(&FromInit::Notice(notice), descriptors);
    }

    pub fn wait_ready(&mut self) {
        self.wait("ready", |request| matches!(request, Request::Ready).then_some(()));
    }

    /// Waits until a link has an address that begins so, and returns it.
    pub fn wait_address(&mut self, link: &str, begin: &str) -> String {
        let find = |links: &[Link]| {
            let link = links.iter().find(|each| each.name == link)?;
            link.addresses.iter().find(|address| address.starts_with(begin)).cloned()
        };
        if let Some(found) = find(&self.links) {
            return found;
        }
        self.wait(&format!("an address {begin}… on {link}"), |request| match request {
            Request::Links { links } => find(links),
            _ => None,
        })
    }

    /// Waits until a link is without such an address.
    pub fn wait_no_address(&mut self, link: &str, begin: &str) {
        let gone = |links: &[Link]| {
            let link = links.iter().find(|each| each.name == link);
            link.is_some_and(|link| !link.addresses.iter().any(|address| address.starts_with(begin)))
        };
        if gone(&self.links) {
            return;
        }
        self.wait(&format!("no address {begin}… on {link}"), |request| match request {
            Request::Links { links } => gone(links).then_some(()),
            _ => None,
        });
    }

    /// Waits until PID 1 is told that a link lacks something, in words with all these parts.
    pub fn wait_lack(&mut self, link: &str, parts: &[&str]) {
        let is_told = |links: &[Link]| {
            let mut missing = links.iter().filter(|each| each.name == link).flat_map(|each| &each.missing);
            missing.any(|text| parts.iter().all(|part| text.contains(part)))
        };
        if is_told(&self.links) {
            return;
        }
        self.wait(&format!("{parts:?}, which {link} lacks"), |request| match request {
            Request::Links { links } => is_told(links).then_some(()),
            _ => None,
        });
    }

    /// Asks for a container's network as PID 1 does; the addresses, or why there are none.
    pub fn attach(&mut self, container: &str, namespace: &Namespace, ports: &[Port]) -> Result<Vec<String>, String> {
        self.attach_as(wanted(container, ports), namespace)
    }

    /// The same for whatever is wanted.
    pub fn attach_as(&mut self, wanted: Attachment, namespace: &Namespace) -> Result<Vec<String>, String> {
        let container = wanted.name.clone();
        self.begin_to_attach(wanted, namespace);
        self.wait(&format!("an answer about {container}"), |request| match request {
            Request::NetworkAttached { name, addresses, .. } if *name == container => Some(Ok(addresses.clone())),
            Request::NetworkFailed { name, reason } if *name == container => Some(Err(reason.clone())),
            _ => None,
        })
    }

    /// The same without waiting for the answer.
    pub fn begin_to_attach(&self, wanted: Attachment, namespace: &Namespace) {
        let descriptor = fs::File::open(namespace.path()).unwrap();
        self.notify(Notice::AttachNetwork(Box::new(wanted)), &[descriptor.as_fd()]);
    }

    /// Puts another configuration in force.
    pub fn apply(&mut self, configuration: &str) {
        self.network = networking(configuration);
        self.notify(Notice::NetworkConfigurationChanged, &[]);
        self.wait("a question about it", |request| matches!(request, Request::NetworkConfiguration).then_some(()));
    }

    pub fn file(&self, name: &str) -> String {
        let mut text = String::new();
        let opened = fs::File::open(self.run.join(name));
        opened.and_then(|mut file| file.read_to_string(&mut text)).unwrap();
        text
    }
}
