//! A supervisor whose containers have no processes: the runtime reports when a test says so, and time stands still until
//! a test moves it on.

pub mod reexecution;

use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::process::{Child, Command};

use berth_config::{Configuration, Source};
use berth_control::channel::Channel;
use berth_control::message::{ContainerState, FromInit, PreparedImage, Reply, Request, ToInit};
use berth_runtime::Running;

use super::*;

/// Without containers.
pub fn supervisor() -> Supervisor {
    Supervisor::new(Rc::new(Reactor::new().unwrap()))
}

/// A configuration that is right.
pub fn configuration(text: &str) -> Configuration {
    berth_config::load(&[Source::new("test.toml", text)]).unwrap().configuration
}

/// A system container with this in its definition.
pub fn system(text: &str) -> berth_config::SystemContainer {
    let text = format!("description = \"a test\"\ncommand = [\"/usr/bin/true\"]\n{text}");
    berth_config::load_system_container(&Source::new("container.toml", text)).unwrap()
}

/// A system container with this role whose channel the test holds the other end of.
pub fn service(supervisor: &mut Supervisor, role: &str) -> (u32, Channel) {
    supervisor.declare_system(role, system(&format!("role = \"{role}\"")));
    let container = supervisor.find_mut(role).unwrap();
    container.state = State::Stopped; // the process is not what is tested
    (container.id, open_channel(supervisor, role))
}

/// The program's end of a system container's next channel.
fn open_channel(supervisor: &mut Supervisor, name: &str) -> Channel {
    let reactor = Rc::clone(&supervisor.reactor);
    let container = supervisor.find_mut(name).unwrap();
    let theirs = container.open_channel().unwrap();
    theirs.set_nonblocking().unwrap();
    reactor.add(container.peer.as_ref().unwrap(), Token::Channel(container.id)).unwrap();
    theirs
}

/// The answer to a request.
pub fn ask(supervisor: &mut Supervisor, from: &(u32, Channel), request: Request) -> Reply {
    ask_for(supervisor, from, request).0
}

/// The answer to a request, and the descriptors that came with it.
pub fn ask_for(supervisor: &mut Supervisor, from: &(u32, Channel), request: Request) -> (Reply, Vec<OwnedFd>) {
    from.1.send(&ToInit { id: 7, request }, &[]).unwrap();
    receive(supervisor, from.0);
    loop {
        match from.1.receive().unwrap() {
            (FromInit::Reply { id: 7, reply }, descriptors) => return (reply, descriptors),
            (FromInit::Reply { id, .. }, _) => panic!("an answer to request {id}, which nobody made"),
            (FromInit::Notice(_), _) => {}
        }
    }
}

/// What a system container asks; what is for the next boot is written at once.
fn receive(supervisor: &mut Supervisor, from: u32) {
    for outcome in supervisor.message(from) {
        if let Outcome::Kept { applicant, descriptor } = outcome {
            supervisor.hand_over(applicant, Ok(descriptor));
        }
    }
}

/// Above every pid that the kernel gives (PID_MAX_LIMIT).
const FIRST_PID: i32 = (1 << 22) + 1;

/// A supervisor with virtual time.
pub struct World {
    pub supervisor: Supervisor,
    /// Which asks on behalf of everybody.
    services: [(u32, Channel); 2],
    /// As the first process of every container: one that has ended, so that signals to it go nowhere.
    ended: File,
    next_pid: i32,
}

impl World {
    /// With this configuration applied.
    pub fn new(text: &str) -> Self {
        let mut supervisor = supervisor();
        supervisor.launcher = |_, _| Ok(None);
        supervisor.now = Duration::from_secs(1000);
        let services = ["engine", "control"].map(|role| service(&mut supervisor, role));
        let mut child = Command::new("true").spawn().unwrap();
        let ended = File::open(format!("/proc/{}", child.id())).unwrap();
        child.wait().unwrap();
        let mut world = Self { supervisor, services, ended, next_pid: FIRST_PID };
        world.apply(text);
        world
    }

    pub fn apply(&mut self, text: &str) {
        self.supervisor.apply(configuration(text));
        self.supervisor.locations = berth_config::load(&[Source::new("test.toml", text)]).unwrap().locations;
        self.supervisor.settle();
    }

    pub fn pass(&mut self, time: Duration) {
        self.supervisor.now += time;
        self.supervisor.wall += time;
        self.supervisor.settle();
    }

    /// The engine has prepared the container's image.
    pub fn prepare(&mut self, name: &str) {
        self.ask_as_engine(Request::Prepared { name: name.into(), image: Box::new(PreparedImage::default()) });
    }

    /// The engine reports something.
    pub fn ask_as_engine(&mut self, request: Request) {
        assert_eq!(ask(&mut self.supervisor, &self.services[0], request), Reply::Done);
        self.supervisor.settle();
    }

    /// Somebody asks for something.
    pub fn ask(&mut self, request: Request) {
        self.send(request);
        assert_eq!(self.answers(), [Reply::Done]);
    }

    /// Somebody asks for something, which comes at once.
    pub fn ask_for(&mut self, request: Request) -> (Reply, Vec<OwnedFd>) {
        let answer = ask_for(&mut self.supervisor, &self.services[1], request);
        self.supervisor.settle();
        answer
    }

    /// Somebody asks for something, and does not wait for the answer.
    pub fn send(&mut self, request: Request) {
        self.services[1].1.send(&ToInit { id: 7, request }, &[]).unwrap();
        receive(&mut self.supervisor, self.services[1].0);
        self.supervisor.settle();
    }

    /// The answers that have come.
    pub fn answers(&mut self) -> Vec<Reply> {
        let received = std::iter::from_fn(|| self.services[1].1.receive::<FromInit>().ok());
        let replies = received.filter_map(|(message, _)| match message {
            FromInit::Reply { reply, .. } => Some(reply),
            FromInit::Notice(_) => None,
        });
        replies.collect()
    }

    /// What `control` was told of containers, and their reasons then.
    pub fn events(&mut self) -> Vec<(String, String)> {
        let received = std::iter::from_fn(|| self.services[1].1.receive::<FromInit>().ok());
        let events = received.filter_map(|(message, _)| match message {
            FromInit::Notice(Notice::ContainerChanged(container)) => Some((container.name, container.reason)),
            _ => None,
        });
        events.collect()
    }

    /// The containers whose removal `control` was told of, and how they had ended.
    pub fn removals(&mut self) -> Vec<(String, i32)> {
        let received = std::iter::from_fn(|| self.services[1].1.receive::<FromInit>().ok());
        let removals = received.filter_map(|(message, _)| match message {
            FromInit::Notice(Notice::ContainerRemoved(container)) => Some((container.name, container.exit_code)),
            _ => None,
        });
        removals.collect()
    }

    /// The states that `control` was told of.
    pub fn told_states(&mut self, name: &str) -> Vec<ContainerState> {
        let received = std::iter::from_fn(|| self.services[1].1.receive::<FromInit>().ok());
        let states = received.filter_map(|(message, _)| match message {
            FromInit::Notice(Notice::ContainerChanged(container)) => {
                (container.name == name).then_some(container.state)
            }
            _ => None,
        });
        states.collect()
    }

    /// The program of `control` has ended, and another one has begun.
    pub fn restart_control(&mut self) {
        self.services[1].1 = open_channel(&mut self.supervisor, "control");
    }

    pub fn supervisor_and_engine(&mut self) -> (&mut Supervisor, &(u32, Channel)) {
        (&mut self.supervisor, &self.services[0])
    }

    /// The runtime reports that the container's program runs.
    pub fn run(&mut self, name: &str) {
        let report = nix::unistd::dup(&self.ended).unwrap();
        let id = self.execute(name, report);
        self.supervisor.runs(id);
        self.supervisor.settle();
    }

    /// The container's program begins; whether it could be run comes through `report`.
    pub fn execute(&mut self, name: &str, report: OwnedFd) -> u32 {
        let pidfd = nix::unistd::dup(&self.ended).unwrap().into_raw_fd();
        let running = format!("{{\"pid\":{},\"pidfd\":{pidfd},\"report\":{}}}", self.next_pid, report.into_raw_fd());
        let running: Running = serde_json::from_str(&running).unwrap();
        self.next_pid += 1;
        let now = self.supervisor.now;
        let container = self.supervisor.find_mut(name).unwrap();
        let begins = matches!(container.state, State::Creating { .. } | State::Attaching { .. });
        assert!(begins, "{name}: {:?}", container.state);
        container.started_us = clock::in_microseconds(now);
        container.state = State::Executing { running, deadline: now };
        container.id
    }

    /// The container is set up, and waits for its addresses.
    pub fn attach(&mut self, name: &str) {
        let descriptor = || nix::unistd::dup(&self.ended).unwrap().into_raw_fd();
        let (pid, pidfd, gate) = (self.next_pid, descriptor(), descriptor());
        let created = format!("{{\"pid\":{pid},\"pidfd\":{pidfd},\"link\":null,\"gate\":{gate}}}");
        self.next_pid += 1;
        let deadline = self.supervisor.now + Duration::from_secs(30);
        let created = Some(serde_json::from_str(&created).unwrap());
        self.supervisor.find_mut(name).unwrap().state = State::Attaching { created, deadline };
    }

    /// The container's first process is this one from now on.
    pub fn adopt(&mut self, name: &str, process: &Child) {
        // As it comes from the runtime's last program: not closed on exec.
        let pidfd = nix::unistd::dup(File::open(format!("/proc/{}", process.id())).unwrap()).unwrap().into_raw_fd();
        let report = nix::unistd::dup(&self.ended).unwrap().into_raw_fd();
        let running = format!("{{\"pid\":{},\"pidfd\":{pidfd},\"report\":{report}}}", process.id());
        self.supervisor.find_mut(name).unwrap().state = State::Running(serde_json::from_str(&running).unwrap());
    }

    /// The runtime reports that the container cannot be set up.
    pub fn fail(&mut self, name: &str) {
        let id = self.supervisor.find(name).unwrap().id;
        self.supervisor.set_up_failed(id, "a test says so".to_owned());
        self.supervisor.settle();
    }

    /// The container's first process ends.
    pub fn end(&mut self, name: &str, code: i32) {
        let named = self.supervisor.containers.values().filter(|container| container.name == name);
        let pid = named.filter_map(Container::pid).next().unwrap();
        self.supervisor.process_ended(pid, code, format!("exited with code {code}"));
        self.supervisor.settle();
    }

    /// Prepares, sets up and ends a container.
    pub fn complete(&mut self, name: &str, code: i32) {
        self.prepare(name);
        self.run(name);
        self.end(name, code);
    }

    pub fn state(&self, name: &str) -> ContainerState {
        self.supervisor.find(name).unwrap().describe().state
    }

    pub fn reason(&self, name: &str) -> &str {
        &self.supervisor.find(name).unwrap().reason
    }
}
