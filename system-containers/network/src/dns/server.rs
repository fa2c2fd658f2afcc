//! The sockets: UDP and TCP on port 53 of every bridge's addresses, for who is on that bridge and nobody else.
//!
//! Each socket has a task; a question that goes on has one too, of which each container has a limited number (see
//! [`super::allowance`]), so that one that asks without end costs the others nothing. Nor does one that opens connections
//! without end: too many of one client, or at one address, take the place of that client's or that address's oldest.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::allowance::Allowance;
use super::cache::Cache;
use super::directory::{Client, Directory};
use super::forward::{self, Answer};
use super::message::{self, Code, Kind, Query, Record};
use super::upstream::Upstream;
use super::{outbox, sockets};
use crate::resolver::PORT;
use crate::{clock, random, report};

/// Connections to one address of ours at the same time: of one client, and of all.
const MOST_OF_ONE: usize = 16;
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be silent (RFC 7766 leaves it to the server).
const IDLE: Duration = Duration::from_secs(10);
/// More than any query.
const LARGEST_QUERY: usize = 4096;

/// A network that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name; empty for the machine itself, which is on no network of containers.
    pub network: String,
    /// The name of its bridge.
    pub bridge: String,
    /// The bridge's addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it has a way out.
    pub open: bool,
    /// Whose questions they all are, wherever they come from: those of a container that asks in its own namespace.
    pub client: Option<IpAddr>,
}

impl Served {
    /// Who asks from an address.
    fn client(&self, from: IpAddr) -> IpAddr {
        self.client.unwrap_or(from)
    }

    /// Whether an address is that of a container, or the machine's own.
    fn knows(&self, from: IpAddr, directory: &Directory) -> bool {
        self.network.is_empty() || directory.container_at(self.client(from)).is_some()
    }
}

/// The sockets in a container's namespace.
#[derive(Debug)]
pub struct Within {
    pub udp: std::net::UdpSocket,
    pub tcp: std::net::TcpListener,
}

/// What the tasks share.
#[derive(Debug)]
struct Common {
    directory: Mutex<Directory>,
    cache: Mutex<Cache>,
    silent: forward::Silent,
}

impl Common {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That of a network.
#[derive(Debug)]
struct Running {
    served: Arc<Served>,
    allowance: Arc<Allowance>,
    tasks: Vec<AbortHandle>,
    /// Where it could not listen, and why; nothing where that is as it should be.
    deaf: Vec<(SocketAddr, Option<String>)>,
}

/// All resolvers.
#[derive(Debug)]
pub struct Resolvers {
    common: Arc<Common>,
    running: BTreeMap<String, Running>,
    /// By container.
    within: BTreeMap<String, Vec<AbortHandle>>,
}

impl Resolvers {
    /// None yet.
    pub fn new() -> Self {
        let common =
            Common { directory: Mutex::default(), cache: Mutex::default(), silent: forward::Silent::default() };
        Self { common: Arc::new(common), running: BTreeMap::new(), within: BTreeMap::new() }
    }

    /// To change it. No task runs meanwhile.
    pub fn directory(&self) -> MutexGuard<'_, Directory> {
        self.common.directory()
    }

    /// Questions go on to these servers from now on.
    pub fn follow(&self, upstream: Upstream) {
        let before = std::mem::replace(&mut self.common.directory().upstream, upstream.clone());
        if before != upstream {
            // Another network may have other answers.
            self.common.cache().clear();
        }
    }

    /// Serves these networks and no others.
    pub fn serve(&mut self, networks: Vec<Served>) {
        let wanted: BTreeMap<String, Served> =
            networks.into_iter().map(|network| (network.network.clone(), network)).collect();
        self.running.retain(|name, running| {
            let stays = wanted.get(name) == Some(&*running.served);
            if !stays {
                running.tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for (name, network) in wanted {
            if !self.running.contains_key(&name) {
                let mut running = Running::new(network);
                running.listen(&self.common);
                self.running.insert(name, running);
            }
        }
    }

    /// Whether a container is answered in its own namespace.
    pub fn is_within(&self, container: &str) -> bool {
        self.within.contains_key(container)
    }

    /// Answers a container in its own namespace, which stays as long as the sockets are open: until [`Self::leave`].
    pub fn serve_within(&mut self, container: &str, served: Served, sockets: Within) {
        self.leave(container);
        let (shared, allowance) = (Arc::new(served), Allowance::of_network());
        let common = || (self.common.clone(), shared.clone());
        match (UdpSocket::from_std(sockets.udp), TcpListener::from_std(sockets.tcp)) {
            (Ok(udp), Ok(tcp)) => {
                let udp = tokio::spawn(datagrams(common(), allowance, udp)).abort_handle();
                let tcp = tokio::spawn(connections(common(), tcp)).abort_handle();
                self.within.insert(container.to_owned(), vec![udp, tcp]);
            }
            (Err(error), _) | (_, Err(error)) => {
                report::say(format_args!("answer names in container {container}: {error}"));
            }
        }
    }

    /// Ends that.
    pub fn leave(&mut self, container: &str) {
        self.within.remove(container).into_iter().flatten().for_each(|task| task.abort());
    }

    /// Tries again where it could not listen.
    pub fn listen_again(&mut self) {
        for running in self.running.values_mut() {
            running.listen(&self.common);
        }
    }

    /// Whether there is any such place.
    pub fn is_deaf(&self) -> bool {
        self.running.values().any(|running| !running.deaf.is_empty())
    }

    /// The links on which names are not answered everywhere, and why, for people.
    pub fn unanswered(&self) -> impl Iterator<Item = (&str, &str)> {
        self.running.values().flat_map(|running| {
            let link = running.served.bridge.as_str();
            running.deaf.iter().filter_map(move |(_, reason)| Some((link, reason.as_deref()?)))
        })
    }
}

impl Running {
    fn new(served: Served) -> Self {
        let allowance = if served.network.is_empty() { Allowance::of_machine() } else { Allowance::of_network() };
        let deaf = served.addresses.iter().map(|address| (SocketAddr::new(*address, PORT), None)).collect();
        Self { served: Arc::new(served), allowance, tasks: Vec::new(), deaf }
    }

    /// Listens where it does not yet.
    fn listen(&mut self, common: &Arc<Common>) {
        for (address, before) in std::mem::take(&mut self.deaf) {
            let shared = || (common.clone(), self.served.clone());
            match sockets::open(address, &self.served.bridge) {
                Ok((udp, tcp)) => {
                    self.tasks.push(tokio::spawn(datagrams(shared(), self.allowance.clone(), udp)).abort_handle());
                    self.tasks.push(tokio::spawn(connections(shared(), tcp)).abort_handle());
                }
                // IPv6 is switched off.
                Err(error) if address.is_ipv6() && sockets::is_no_address(&error) => self.deaf.push((address, None)),
                Err(error) => {
                    let reason = sockets::reason(address, &error);
                    if before.as_ref() != Some(&reason) {
                        report::say(format_args!("{}: {reason}", self.served.bridge));
                    }
                    self.deaf.push((address, Some(reason)));
                }
            }
        }
    }
}

impl Drop for Resolvers {
    fn drop(&mut self) {
        self.serve(Vec::new());
        self.within.values().flatten().for_each(AbortHandle::abort);
    }
}

async fn datagrams((common, network): (Arc<Common>, Arc<Served>), allowance: Arc<Allowance>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LARGEST_QUERY];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What an earlier answer met, such as a port that is closed meanwhile.
            Err(_) => continue,
        };
        let message = buffer.get(..length).unwrap_or_default();
        let known = network.knows(from.ip(), &common.directory());
        match respond(&common, &network, network.client(from.ip()), message, false) {
            Response::Here(answer) => outbox::send(&socket, &answer, from, known),
            Response::Nothing => {}
            Response::Outside { query, key, servers } => {
                let kept = common.cache().find(&key.question, clock::now());
                if let Some(answer) = kept {
                    outbox::send(&socket, &query.deliver(answer, false), from, known);
                    continue;
                }
                let container = common.directory().container_at(network.client(from.ip())).map(str::to_owned);
                let Some(place) = allowance.take(container) else {
                    outbox::send(&socket, &outside(&common, (&query, key), None, false), from, known);
                    continue;
                };
                let (common, socket) = (common.clone(), socket.clone());
                tokio::spawn(async move {
                    let answer = forward::ask(&query.forwarded(), &servers, &common.silent, false).await;
                    drop(place);
                    outbox::send(&socket, &outside(&common, (&query, key), answer, false), from, known);
                });
            }
        }
    }
}

async fn connections((common, network): (Arc<Common>, Arc<Served>), listener: TcpListener) {
    // The oldest first.
    let mut open: Vec<(IpAddr, AbortHandle)> = Vec::new();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // No descriptors are left, which takes a while: the connection that is refused comes again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|(_, task)| !task.is_finished());
        if let Some(place) = in_the_way(&open, from.ip()) {
            open.remove(place).1.abort();
        }
        let (common, network) = (common.clone(), network.clone());
        let task = tokio::spawn(async move {
            // Ends by the other side, by silence or by an error: all the same to us.
            let _ended = conversation(&common, &network, from.ip(), stream).await;
        });
        open.push((from.ip(), task.abort_handle()));
    }
}

/// Which connection makes room for a new one. The machine's own programs are all one client.
fn in_the_way<T>(open: &[(IpAddr, T)], new: IpAddr) -> Option<usize> {
    let of_client = |(client, _): &(IpAddr, T)| *client == new;
    if !new.is_loopback() && open.iter().filter(|each| of_client(each)).count() >= MOST_OF_ONE {
        return open.iter().position(of_client);
    }
    (open.len() >= MOST_CONNECTIONS).then_some(0)
}

async fn conversation(common: &Common, network: &Served, from: IpAddr, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let message = timeout(IDLE, forward::read_message(&mut stream)).await??;
        let answer = match respond(common, network, network.client(from), &message, true) {
            Response::Here(answer) => answer,
            Response::Nothing => return Ok(()),
            Response::Outside { query, key, servers } => {
                let kept = common.cache().find(&key.question, clock::now());
                match kept {
                    Some(answer) => query.deliver(answer, true),
                    None => {
                        let answer = forward::ask(&query.forwarded(), &servers, &common.silent, true).await;
                        outside(common, (&query, key), answer, true)
                    }
                }
            }
        };
        timeout(IDLE, forward::write_message(&mut stream, &answer)).await??;
    }
}

/// What another server has answered, for the client; it is kept for the next one.
fn outside(common: &Common, (query, key): (&Query, Key), answer: Option<Answer>, stream: bool) -> Vec<u8> {
    match answer {
        Some(Answer { message, keep }) => {
            let mut cache = common.cache();
            if keep && cache.clearings() == key.clearings {
                cache.keep(key.question, &message, clock::now());
            }
            drop(cache);
            query.deliver(message, stream)
        }
        None => query.answer(Code::Failed, &[], stream),
    }
}

/// How an answer is kept.
struct Key {
    question: Vec<u8>,
    /// Of the cache, when the servers were chosen: one that comes after the next is of servers that are asked no more.
    clearings: u64,
}

enum Response {
    Here(Vec<u8>),
    Outside { query: Query, key: Key, servers: Vec<SocketAddr> },
    Nothing,
}

/// What becomes of a message.
fn respond(common: &Common, network: &Served, from: IpAddr, message: &[u8], stream: bool) -> Response {
    let Some(query) = Query::read(message) else {
        return message::refusal(message).map_or(Response::Nothing, Response::Here);
    };
    let client = Client { address: from, network: &network.network, open: network.open };
    let directory = common.directory();
    if let Some(name) = query.address().and_then(|address| directory.name_of(client, address)) {
        return Response::Here(query.answer(Code::Good, &[Record::Name(name.to_owned())], stream));
    }
    if let Some(addresses) = directory.find(client, &query.name) {
        return Response::Here(query.answer(Code::Good, &records(query.kind, &addresses), stream));
    }
    let is_short = !query.name.contains('.');
    let (servers, own) = directory.servers_of(client, &query.name);
    if !directory.may_ask_outside(client) || (is_short && servers.is_empty()) {
        return Response::Here(query.answer(Code::NoSuchName, &[], stream));
    }
    let mut question = query.key();
    if own {
        // What its servers say is for nobody who asks others.
        servers.iter().for_each(|server| question.extend(server.to_string().bytes().chain([0])));
    }
    // With the directory in hand, whose servers are changed before the cache is cleared.
    let key = Key { question, clearings: common.cache().clearings() };
    Response::Outside { query, key, servers: servers.to_vec() }
}

/// In an order that differs from question to question: most programs take the first.
fn records(kind: Kind, addresses: &[(std::net::Ipv4Addr, std::net::Ipv6Addr)]) -> Vec<Record> {
    let mut records: Vec<Record> = match kind {
        Kind::A => addresses.iter().map(|(address, _)| Record::Address((*address).into())).collect(),
        Kind::Aaaa => addresses.iter().map(|(_, address)| Record::Address((*address).into())).collect(),
        Kind::Ptr | Kind::Other => Vec::new(),
    };
    if records.len() > 1 {
        let count = u64::try_from(records.len()).unwrap_or(1);
        records.rotate_left(usize::try_from(random::number() % count).unwrap_or(0));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_connections_makes_room_for_its_own_and_the_oldest_for_all() {
        let client = |number: usize| IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()]);
        let mut open: Vec<(IpAddr, ())> = (0..20).map(|number| (client(number), ())).collect();
        open.extend([(client(90), ()); MOST_OF_ONE]);
        assert_eq!(in_the_way(&open, client(90)), Some(20));
        assert_eq!(in_the_way(&open, client(91)), None);
        open.resize(MOST_CONNECTIONS, (client(92), ()));
        assert_eq!(in_the_way(&open, client(91)), Some(0));
        let own = [(IpAddr::from([127, 0, 0, 1]), ()); MOST_OF_ONE];
        assert_eq!(in_the_way(&own, own[0].0), None);
    }
}
