//! Containers that were made by hand.

use berth_control::channel::{Channel, ChannelError};
use berth_control::message::ContainerState::{Declared, Paused, Running, Starting, Stopped};
use berth_control::message::{
    Creation, Ending, ExecutionEnd, FromInit, Interest, Port, PreparedImage, Reply, Request, SessionStream,
    TerminalSize, ToClient,
};

use super::container::Goal;
use super::world::{World, ask, ask_for, configuration};

pub const WEB: &str = "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nports = []\n";

pub fn creation(name: &str, text: &str) -> Creation {
    let text = format!("[containers.{name}]\nimage = 'a'\nnetwork_mode = 'none'\n{text}");
    let container = configuration(&text).containers.into_values().next().unwrap();
    Creation::plain(name.into(), container)
}

pub fn once(name: &str) -> Creation {
    Creation { remove: true, start: true, ..creation(name, "restart = 'no'") }
}

/// A machine whose configuration has been read.
pub fn world(text: &str) -> World {
    let mut world = World::new(text);
    world.supervisor.restore_made(Vec::new());
    world
}

/// Makes one, and the client's end of a session with it.
pub fn run(world: &mut World, creation: Creation, interest: Interest) -> Channel {
    let request = Request::Create { creation: Box::new(creation), session: Some(interest) };
    let (reply, descriptors) = world.ask_for(request);
    assert_eq!(reply, Reply::Done);
    let session = Channel::from(descriptors.into_iter().next().unwrap());
    session.set_nonblocking().unwrap();
    session
}

pub fn make(world: &mut World, creation: Creation) -> Reply {
    world.ask_for(Request::Create { creation: Box::new(creation), session: None }).0
}

/// Everything that the client has been told, without the descriptors.
pub fn told(session: &Channel) -> Vec<ToClient> {
    std::iter::from_fn(|| session.receive::<ToClient>().ok().map(|(message, _)| message)).collect()
}

pub fn ended(exit_code: u8, reason: &str) -> ToClient {
    ToClient::Ended(ExecutionEnd { exit_code, reason: reason.into() })
}

#[test]
fn a_run_tells_its_client_everything_and_leaves_nothing() {
    let mut world = world(WEB);
    let session = run(&mut world, once("job"), Interest::Streams);
    assert_eq!(world.state("job"), Declared);
    let (output, error) = (ToClient::Stream(SessionStream::Output), ToClient::Stream(SessionStream::Error));
    let (first, descriptors) = session.receive::<ToClient>().unwrap();
    // What goes for good is not kept by `logs` either.
    assert_eq!((first, descriptors.len()), (output, 1));
    assert_eq!(told(&session), [error]);
    world.prepare("job");
    assert_eq!(world.state("job"), Starting);
    world.run("job");
    world.end("job", 3);
    assert_eq!(told(&session), [ToClient::Running, ended(3, "")]);
    assert!(matches!(session.receive::<ToClient>(), Err(ChannelError::Closed)));
    assert!(world.supervisor.find("job").is_none());
    assert_eq!(world.supervisor.facts.forgotten.get("job"), Some(&true));
    assert!(!world.supervisor.facts.made_changed, "it was never kept");
    let forgotten = Request::Forgotten { name: "job".into() };
    let (supervisor, engine) = world.supervisor_and_engine();
    assert_eq!(ask(supervisor, engine, forgotten), Reply::Done);
    assert!(world.supervisor.facts.forgotten.is_empty());
}

#[test]
fn a_container_that_does_not_come_to_run_ends_with_docker_s_code() {
    let mut world = world("");
    let (name, reason) = (|| "job".to_owned(), || "no registry has it".to_owned());
    for failed in [
        Request::PrepareFailed { name: name(), reason: reason() },
        Request::PrepareDelayed { name: name(), reason: reason(), retry_s: Some(2) },
    ] {
        let session = run(&mut world, once("job"), Interest::State);
        let (supervisor, engine) = world.supervisor_and_engine();
        ask(supervisor, engine, failed);
        world.supervisor.settle();
        assert_eq!(told(&session), [ended(125, "no registry has it")]);
        assert!(world.supervisor.find("job").is_none());
    }

    let session = run(&mut world, once("job"), Interest::State);
    world.prepare("job");
    let id = world.supervisor.find("job").unwrap().id;
    let chain =
        |texts: &[&str], errno| berth_runtime::Chain { texts: texts.iter().map(ToString::to_string).collect(), errno };
    let missing = chain(&["exec nosuch: executable file not found in $PATH"], nix::libc::ENOENT);
    world.supervisor.could_not_be_run(id, &berth_runtime::Error::Reported(missing));
    world.supervisor.settle();
    assert_eq!(told(&session), [ended(127, "exec nosuch: executable file not found in $PATH")]);

    // A file that is missing somewhere else is not the program.
    let session = run(&mut world, once("job"), Interest::State);
    world.prepare("job");
    let id = world.supervisor.find("job").unwrap().id;
    let missing = chain(&["set up mounts", "open /srv/data"], nix::libc::ENOENT);
    world.supervisor.could_not_be_run(id, &berth_runtime::Error::Reported(missing));
    world.supervisor.settle();
    assert!(matches!(&told(&session)[..], [ToClient::Ended(end)] if end.exit_code == 125));
}

#[test]
fn what_is_made_waits_for_its_start_and_is_kept() {
    let mut world = world(WEB);
    assert_eq!(make(&mut world, creation("job", "restart = 'always'\ntty = true")), Reply::Done);
    assert_eq!(
        (world.state("job"), world.reason("job")),
        (Stopped, "was not started yet; `berth start job` starts it")
    );
    assert!(std::mem::take(&mut world.supervisor.facts.made_changed));
    let kept = world.supervisor.kept_made();
    assert_eq!(kept.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["job"]);
    world.ask(Request::Start { name: "job".into() });
    assert_eq!(world.state("job"), Declared);
    // Another configuration leaves it alone.
    let id = world.supervisor.find("job").unwrap().id;
    world.apply("");
    assert_eq!(world.supervisor.find("job").unwrap().id, id);
    assert!(world.supervisor.find("web").is_none());

    let mut next = World::new("");
    next.supervisor.restore_made(world.supervisor.kept_made());
    next.supervisor.settle();
    assert_eq!(next.state("job"), Declared);
    assert!(next.supervisor.find("job").unwrap().user().unwrap().tty);
    let mut rescue = World::new("");
    rescue.supervisor.restore_made_at_rest(world.supervisor.kept_made());
    assert_eq!(rescue.state("job"), Stopped);
    assert_eq!(rescue.supervisor.kept_made(), world.supervisor.kept_made(), "the boot after that starts it");
}

#[test]
fn a_container_that_ran_once_does_not_run_again_by_itself_after_a_reboot() {
    let mut world = world("");
    make(&mut world, Creation { start: true, ..creation("job", "restart = 'no'") });
    let mut next = World::new("");
    next.supervisor.restore_made(world.supervisor.kept_made());
    next.supervisor.settle();
    assert_eq!(next.state("job"), Stopped);
    assert!(next.reason("job").contains("berth start job"));
}

#[test]
fn a_name_or_a_port_that_is_taken_is_refused_with_what_to_do() {
    let mut world = world("[containers.web]\nimage = 'a'\nports = ['8080:80']\nreplicas = 1\n");
    let refusal = |world: &mut World, creation| match make(world, creation) {
        Reply::Refused { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(refusal(&mut world, creation("web", "")).contains("another name"));
    assert!(refusal(&mut world, creation("web-1", "")).contains("another name"));
    assert!(refusal(&mut world, Creation { name: "engine".into(), ..creation("x", "") }).contains("another name"));
    let text = "[containers.b]\nimage = 'a'\nports = ['127.0.0.1:8080:80']\n";
    let container = configuration(text).containers.into_values().next().unwrap();
    let reason = refusal(&mut world, Creation::plain("b".into(), container));
    assert!(reason.contains("8080") && reason.contains("web-1"), "{reason}");
    make(&mut world, creation("c", ""));
    assert!(refusal(&mut world, creation("c", "")).contains("berth rm c"));
}

#[test]
fn a_range_of_ports_goes_on_in_one_piece() {
    let mut world = world("[containers.sip]\nimage = 'a'\nports = ['127.0.0.1:10000-20000:30000-40000/udp']\n");
    let sip = world.supervisor.find("sip").unwrap();
    let port = Port {
        host_address: "127.0.0.1".into(),
        host_port: 10_000,
        container_port: 30_000,
        further_ports: 10_000,
        protocol: "udp".into(),
    };
    assert_eq!(sip.ports(), [port]);
    assert_eq!(sip.describe().ports, sip.ports());
    let other = configuration("[containers.b]\nimage = 'a'\nports = ['19000-21000:1000-3000/udp']\n");
    let container = other.containers.into_values().next().unwrap();
    let reply = make(&mut world, Creation::plain("b".into(), container));
    assert!(matches!(&reply, Reply::Refused { reason } if reason.contains("port 19000")), "{reply:?}");
}

#[test]
fn ports_that_the_image_exposes_are_listed_behind_the_published_ones() {
    let mut world = world("[containers.web]\nimage = 'a'\nports = ['8080:80']\n[containers.next]\nimage = 'a'\n");
    let port = |container_port| Port {
        host_address: String::new(),
        host_port: 0,
        container_port,
        further_ports: 0,
        protocol: "tcp".into(),
    };
    for name in ["web", "next"] {
        let image = Box::new(PreparedImage { exposed: vec![port(80), port(443)], ..PreparedImage::default() });
        world.ask_as_engine(Request::Prepared { name: name.into(), image });
    }
    let listed = |name: &str| {
        let container = world.supervisor.find(name).unwrap();
        let ports = container.describe().ports;
        ports.iter().map(|port| (port.host_port, port.container_port)).collect::<Vec<_>>()
    };
    assert_eq!(listed("web"), [(8080, 80), (0, 443)]);
    assert_eq!(listed("next"), [(0, 80), (0, 443)]);
    assert_eq!(world.supervisor.find("next").unwrap().ports(), [], "nothing is published by that");
}

#[test]
fn what_is_left_of_an_exposed_range_beside_the_published_ports_is_listed() {
    let mut world =
        world("[containers.sip]\nimage = 'a'\nports = ['5000:5000/udp', '5003-5004:5003-5004/udp', '5001:5001/tcp']\n");
    let exposed = Port {
        host_address: String::new(),
        host_port: 0,
        container_port: 5000,
        further_ports: 6,
        protocol: "udp".into(),
    };
    let image = Box::new(PreparedImage { exposed: vec![exposed], ..PreparedImage::default() });
    world.ask_as_engine(Request::Prepared { name: "sip".into(), image });
    let ports = world.supervisor.find("sip").unwrap().describe().ports;
    let exposed = ports.iter().filter(|port| port.host_port == 0);
    let exposed: Vec<_> = exposed.map(|port| (port.container_port, port.further_ports)).collect();
    assert_eq!(exposed, [(5001, 1), (5005, 1)]);
}

#[test]
fn the_audit_has_what_was_made_too() {
    let mut world = world("[containers.web]\nimage = 'a'\nports = ['8080:80']\n");
    make(&mut world, creation("job", "security = { seccomp = 'unconfined' }"));
    let sheet = std::fs::File::from(world.ask_for(Request::Audit).1.remove(0));
    let audit: berth_config::Audit = serde_json::from_reader(sheet).unwrap();
    let found: Vec<_> = audit.loosenings.iter().map(|found| (found.key.as_str(), found.made)).collect();
    assert_eq!(found, [("containers.web.ports", false), ("containers.job.security.seccomp", true)]);
}

#[test]
fn a_plan_looks_at_what_was_made_and_at_what_runs() {
    let mut world = world(WEB);
    for name in ["job", "idle"] {
        make(&mut world, Creation { start: name == "job", ..creation(name, "") });
        world.prepare(name);
    }
    world.prepare("web");
    ["web", "job"].iter().for_each(|name| world.run(name));
    let present = world.supervisor.present();
    assert_eq!(present.made.into_keys().collect::<Vec<_>>(), ["idle", "job"]);
    assert_eq!(present.running.into_iter().collect::<Vec<_>>(), ["job", "web"]);
    world.ask(Request::Stop { name: "web".into(), ending: Ending::default() });
    assert!(!world.supervisor.present().running.contains("web"), "which is about to end");
}

#[test]
fn only_what_was_made_and_does_not_run_is_removed_without_force() {
    let mut world = world(WEB);
    let remove = |name: &str, force| Request::Remove { name: name.into(), force, volumes: true };
    let refused = |world: &mut World, request| matches!(world.ask_for(request).0, Reply::Refused { .. });
    assert!(refused(&mut world, remove("web", true)));
    assert!(refused(&mut world, remove("engine", true)));
    assert!(refused(&mut world, remove("nobody", true)));
    make(&mut world, Creation { start: true, ..creation("job", "restart = 'always'") });
    world.prepare("job");
    world.run("job");
    assert!(refused(&mut world, remove("job", false)));
    assert_eq!(world.state("job"), Running);
    // Answered when it is gone.
    world.send(remove("job", true));
    assert_eq!(world.answers(), []);
    assert_eq!(world.supervisor.find("job").unwrap().goal, Goal::Remove);
    world.end("job", 137);
    assert_eq!(world.answers(), [Reply::Done]);
    assert_eq!(world.supervisor.facts.forgotten.get("job"), Some(&true));
}

#[test]
fn the_engine_is_told_again_what_it_may_not_have_removed() {
    let mut world = world("");
    make(&mut world, creation("job", ""));
    world.ask(Request::Remove { name: "job".into(), force: false, volumes: false });
    let (supervisor, engine) = world.supervisor_and_engine();
    supervisor.find_mut("engine").unwrap().ready = true;
    while engine.1.receive::<FromInit>().is_ok() {}
    let everything = Request::Declared { after: String::new() };
    assert!(
        matches!(ask_for(supervisor, engine, everything).0, Reply::Declared { declarations, .. } if declarations.is_empty())
    );
    // Its next container of that name is prepared after that, so it has been done.
    make(&mut world, Creation { start: true, ..creation("job", "") });
    world.prepare("job");
    assert!(world.supervisor.facts.forgotten.is_empty());
}

#[test]
fn a_paused_container_is_neither_checked_nor_executed_in_and_can_be_stopped() {
    let mut world = world("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nhealth = { tcp = 80 }\n");
    let refused = |world: &mut World, request| match world.ask_for(request).0 {
        Reply::Refused { reason } => reason,
        other => panic!("{other:?}"),
    };
    let pause = || Request::Pause { name: "web".into() };
    assert!(refused(&mut world, pause()).contains("not running"));
    assert!(refused(&mut world, Request::Pause { name: "engine".into() }).contains("system container"));
    world.prepare("web");
    world.run("web");
    assert!(refused(&mut world, Request::Unpause { name: "web".into() }).contains("not paused"));
    let folder = tempfile::tempdir().unwrap();
    world.supervisor.find_mut("web").unwrap().cgroup = folder.path().to_owned();
    world.ask(pause());
    let freezer = folder.path().join("cgroup.freeze");
    assert_eq!((world.state("web"), std::fs::read_to_string(&freezer).unwrap().as_str()), (Paused, "1"));
    assert!(refused(&mut world, pause()).contains("paused already"));
    assert_eq!(world.supervisor.deadline(), None, "no check is due");
    world.ask(Request::Stop { name: "web".into(), ending: Ending::default() });
    assert_eq!(std::fs::read_to_string(&freezer).unwrap(), "0");
    world.end("web", 0);
    assert!(!world.supervisor.find("web").unwrap().frozen);
}

#[test]
fn a_container_without_a_terminal_has_no_size() {
    let mut world = world(WEB);
    let request = Request::Resize { name: "web".into(), size: TerminalSize { rows: 5, columns: 5 } };
    assert!(matches!(world.ask_for(request).0, Reply::Refused { reason } if reason.contains("no terminal")));
}

#[test]
fn a_name_stands_for_all_replicas() {
    let mut world = world("[containers.web]\nimage = 'a'\nreplicas = 2\n[containers.db]\nimage = 'b'\n");
    let mut instances = |name: &str| world.ask_for(Request::Instances { name: name.into() }).0;
    assert_eq!(instances("web"), Reply::Names(vec!["web-1".into(), "web-2".into()]));
    assert_eq!(instances("web-2"), Reply::Names(vec!["web-2".into()]));
    assert_eq!(instances("db"), Reply::Names(vec!["db".into()]));
    assert!(matches!(instances("nobody"), Reply::Refused { .. }));
}

#[test]
fn a_configuration_that_brings_the_name_takes_it() {
    let mut world = world("");
    make(&mut world, creation("web", ""));
    world.apply(WEB);
    let web = world.supervisor.find("web").unwrap();
    assert!(web.made.is_none());
    assert_eq!(world.supervisor.kept_made().len(), 0);
    let prepared = Request::Prepared { name: "web".into(), image: Box::new(PreparedImage::default()) };
    let (supervisor, engine) = world.supervisor_and_engine();
    assert_eq!(ask(supervisor, engine, prepared), Reply::Done);
}

#[test]
fn the_engine_learns_of_more_than_a_message_holds() {
    let mut world = world("");
    let long = "x".repeat(10_000);
    let labelled = |number| creation(&format!("c{number:02}"), &format!("labels = {{ text = '{long}' }}"));
    (0..50).for_each(|number| assert_eq!(make(&mut world, labelled(number)), Reply::Done));
    let (supervisor, engine) = world.supervisor_and_engine();
    let (mut names, mut after, mut pages) = (Vec::new(), Some(String::new()), 0);
    while let Some(last) = after {
        let reply = ask(supervisor, engine, Request::Declared { after: last });
        let Reply::Declared { declarations, next } = reply else { panic!("{reply:?}") };
        names.extend(declarations.into_iter().map(|one| one.name));
        (after, pages) = (next, pages + 1);
    }
    assert_eq!(names, (0..50).map(|number| format!("c{number:02}")).collect::<Vec<_>>());
    assert!(pages > 3, "{pages}");
}

#[test]
fn one_that_runs_in_namespaces_of_another_is_made_if_that_one_lends_them() {
    let mut world = world(WEB);
    let beside = |name: &str, keys: &str| {
        let text = format!("[containers.{name}]\nimage = 'a'\n{keys}\n");
        let loaded = berth_config::load_definition(&berth_config::Source::new("text", text)).unwrap();
        Creation::plain(name.into(), loaded.configuration.containers.into_values().next().unwrap())
    };
    assert_eq!(make(&mut world, beside("one", "pid = 'container:web'")), Reply::Done);
    assert_eq!(make(&mut world, creation("db", "ipc = 'shareable'")), Reply::Done);
    assert_eq!(make(&mut world, beside("two", "ipc = 'container:db'")), Reply::Done);
    let refused = |reply: Reply| match reply {
        Reply::Refused { reason } => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(make(&mut world, beside("three", "ipc = 'container:web'")));
    assert!(reason.contains("\"web\" shares its IPC namespace with nobody"), "{reason}");
    let reason = refused(make(&mut world, beside("three", "network_mode = 'container:nobody'")));
    assert!(reason.contains("there is no such container"), "{reason}");
}
