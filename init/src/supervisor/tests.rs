use std::fs::File;
use std::io::Read;

use berth_control::message::{ContainerState, Ending, Kind, PreparedImage, Reply, Request, ToInit};

use super::world::{self, World, ask, ask_for, configuration, service, supervisor, system};
use super::*;

const WEB: &str = "[containers.web]\nimage = \"web\"\n";

#[test]
fn a_declared_container_waits_for_its_image_and_then_for_the_network() {
    let mut supervisor = supervisor();
    let engine = service(&mut supervisor, "engine");
    supervisor.apply(configuration(WEB));
    supervisor.settle();
    assert!(matches!(supervisor.find("web").unwrap().state, State::Declared));
    let declared = ask(&mut supervisor, &engine, Request::Declared { after: String::new() });
    assert!(matches!(declared, Reply::Declared { declarations, next: None } if declarations.len() == 1));
    assert_eq!(supervisor.find("web").unwrap().describe().state, ContainerState::Preparing);
    let prepared = Request::Prepared { name: "web".into(), image: Box::new(PreparedImage::default()) };
    assert_eq!(ask(&mut supervisor, &engine, prepared), Reply::Done);
    supervisor.settle();
    let web = supervisor.find("web").unwrap();
    assert!(matches!(web.state, State::Waiting));
    assert_eq!(web.reason, "waits for the system container network");
    assert!(!supervisor.all_tried());
}

/// What `berth events` shows, in order; `made` by hand, or else by the configuration.
fn states_of_a_run(made: bool) -> Vec<ContainerState> {
    let mut world = world::World::new("");
    world.supervisor.restore_made(Vec::new());
    for role in ["engine", "control"] {
        world.supervisor.find_mut(role).unwrap().ready = true;
    }
    let text = "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n";
    if made {
        let container = configuration(text).containers.into_values().next().unwrap();
        let creation = berth_control::message::Creation::plain("job".into(), container);
        let creation = Box::new(berth_control::message::Creation { start: true, ..creation });
        world.send(Request::Create { creation, session: None });
    } else {
        world.apply(text);
        let (supervisor, engine) = world.supervisor_and_engine();
        ask(supervisor, engine, Request::Declared { after: String::new() });
    }
    world.prepare("job");
    world.run("job");
    world.end("job", 0);
    let mut states = world.told_states("job");
    // One may be told again for another reason or process.
    states.dedup();
    states
}

#[test]
fn each_state_of_a_run_is_told() {
    use ContainerState::{Declared, Preparing, Running, Starting, Stopped};
    for made in [false, true] {
        assert_eq!(states_of_a_run(made), [Declared, Preparing, Starting, Running, Stopped], "made by hand: {made}");
    }
}

#[test]
fn a_container_that_cannot_be_prepared_is_a_problem_of_the_machine() {
    let mut supervisor = supervisor();
    let engine = service(&mut supervisor, "engine");
    supervisor.apply(configuration(WEB));
    let reason = "no archive has the image web".to_owned();
    ask(&mut supervisor, &engine, Request::PrepareFailed { name: "web".into(), reason });
    supervisor.settle();
    assert_eq!(supervisor.problems(), ["container web: no archive has the image web"]);
    assert!(supervisor.find("web").unwrap().tried);
}

#[test]
fn a_container_whose_image_is_tried_again_is_a_problem_and_can_still_start() {
    let mut supervisor = supervisor();
    let engine = service(&mut supervisor, "engine");
    supervisor.apply(configuration(WEB));
    let delayed =
        |reason: &str, retry_s| Request::PrepareDelayed { name: "web".into(), reason: reason.into(), retry_s };
    ask(&mut supervisor, &engine, delayed("pulling web", None));
    assert!(supervisor.problems().is_empty() && !supervisor.find("web").unwrap().tried);
    ask(&mut supervisor, &engine, delayed("no route to the registry", Some(5)));
    assert_eq!(supervisor.problems(), ["container web: no route to the registry; next try in 5 s"]);
    assert!(supervisor.find("web").unwrap().tried);
    let prepared = Request::Prepared { name: "web".into(), image: Box::new(PreparedImage::default()) };
    ask(&mut supervisor, &engine, prepared);
    assert!(matches!(supervisor.find("web").unwrap().state, State::Waiting));
    assert!(supervisor.problems().is_empty());
}

#[test]
fn the_engine_learns_how_registries_are_reached() {
    let mut supervisor = supervisor();
    let engine = service(&mut supervisor, "engine");
    supervisor.apply(configuration("[registries.'a:5000']\nplain_http = true\n[proxy]\nhttps = 'http://p:3128'\n"));
    let Reply::Registries(registries) = ask(&mut supervisor, &engine, Request::Registries) else { panic!() };
    assert!(registries.registries.values().all(|registry| registry.plain_http));
    assert!(registries.registries.len() == 1 && registries.proxy.https.is_some());
}

#[test]
fn the_engine_learns_what_is_declared() {
    let mut supervisor = supervisor();
    let engine = service(&mut supervisor, "engine");
    supervisor.apply(configuration(&format!("{WEB}[containers.db]\nimage = \"db\"\n")));
    let everything = Request::Declared { after: String::new() };
    let Reply::Declared { declarations, next } = ask(&mut supervisor, &engine, everything) else { panic!() };
    assert_eq!(next, None);
    assert_eq!(declarations.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
}

#[test]
fn only_what_differs_is_touched_by_a_new_configuration() {
    let mut supervisor = supervisor();
    let old =
        "[containers.kept]\nimage = \"a\"\n[containers.changed]\nimage = \"b\"\n[containers.gone]\nimage = \"c\"\n";
    supervisor.apply(configuration(old));
    let id = |supervisor: &Supervisor, name: &str| supervisor.find(name).map(|container| container.id);
    let (kept, changed) = (id(&supervisor, "kept"), id(&supervisor, "changed"));
    supervisor.apply(configuration(
        "[containers.kept]\nimage = \"a\"\n[containers.changed]\nimage = \"b2\"\n[containers.new]\nimage = \"d\"\n",
    ));
    supervisor.settle();
    assert_eq!(id(&supervisor, "kept"), kept);
    assert_ne!(id(&supervisor, "changed"), changed);
    assert_eq!(id(&supervisor, "gone"), None);
    assert!(id(&supervisor, "new").is_some());
    assert_eq!(supervisor.list().len(), 3);
}

#[test]
fn two_containers_never_share_a_range_of_ids() {
    let mut supervisor = supervisor();
    supervisor.apply(configuration("[containers.a]\nimage = \"a\"\n[containers.b]\nimage = \"b\"\n"));
    supervisor.apply(configuration("[containers.b]\nimage = \"b\"\n[containers.c]\nimage = \"c\"\n"));
    supervisor.settle();
    assert_ne!(supervisor.find("b").unwrap().slot, supervisor.find("c").unwrap().slot);
}

#[test]
fn all_containers_are_listed_at_once() {
    let mut supervisor = supervisor();
    let control = service(&mut supervisor, "control");
    supervisor.apply(configuration("[containers.a]\nimage = \"a\"\nreplicas = 300\n"));
    let (reply, mut sheets) = ask_for(&mut supervisor, &control, Request::Containers);
    assert_eq!(reply, Reply::Done);
    let mut bytes = Vec::new();
    File::from(sheets.remove(0)).read_to_end(&mut bytes).unwrap();
    let listed = berth_control::listing::read(&bytes).unwrap();
    assert_eq!(listed.len(), 301);
    assert_eq!((listed[0].name.as_str(), listed[1].name.as_str()), ("control", "a-1"));
    assert!(listed.iter().eq(&supervisor.list().into_iter().map(Container::describe).collect::<Vec<_>>()));
}

#[test]
fn a_role_does_not_include_what_another_may() {
    let mut supervisor = supervisor();
    let network = service(&mut supervisor, "network");
    for request in [
        Request::Containers,
        Request::Declared { after: String::new() },
        Request::Power(berth_control::message::PowerAction::Reboot),
    ] {
        assert!(matches!(ask(&mut supervisor, &network, request), Reply::Refused { .. }));
    }
    assert!(matches!(ask(&mut supervisor, &network, Request::NetworkConfiguration), Reply::NetworkConfiguration(_)));
}

#[test]
fn a_service_is_ready_when_it_says_so_and_gets_what_it_has_missed() {
    let mut supervisor = supervisor();
    supervisor.apply(configuration(WEB));
    let logs = service(&mut supervisor, "logs");
    assert!(!supervisor.find("logs").unwrap().ready);
    logs.1.send(&ToInit { id: 1, request: Request::Ready }, &[]).unwrap();
    supervisor.message(logs.0);
    assert!(supervisor.find("logs").unwrap().ready);
    let mut pipes = Vec::new();
    while let Ok((message, descriptors)) = logs.1.receive::<FromInit>() {
        if let FromInit::Notice(Notice::LogPipe { container, stream }) = message {
            assert_eq!(descriptors.len(), 1);
            pipes.push((container, stream));
        }
    }
    assert_eq!(pipes.len(), 4, "two for web, two for logs itself: {pipes:?}");
}

#[test]
fn a_flood_of_requests_leaves_the_others_their_turn() {
    let mut supervisor = supervisor();
    let control = service(&mut supervisor, "control");
    control.1.set_nonblocking().unwrap();
    let answers = |supervisor: &mut Supervisor| {
        supervisor.message(control.0);
        std::iter::from_fn(|| control.1.receive::<FromInit>().ok()).count()
    };
    for id in 0..40 {
        control.1.send(&ToInit { id, request: Request::Instances { name: "nobody".into() } }, &[]).unwrap();
    }
    assert_eq!((answers(&mut supervisor), answers(&mut supervisor)), (32, 8));
}

#[test]
fn an_unknown_container_is_named_in_the_refusal() {
    let mut supervisor = supervisor();
    let control = service(&mut supervisor, "control");
    let Reply::Refused { reason } = ask(&mut supervisor, &control, Request::Start { name: "wep".into() }) else {
        panic!()
    };
    assert!(reason.contains("wep"), "{reason}");
}

#[test]
fn a_system_container_waits_for_those_it_depends_on() {
    let mut supervisor = supervisor();
    supervisor.declare_system("late", system("depends_on = [\"early\"]"));
    supervisor.declare_system("early", system("depends_on = [\"never\"]"));
    supervisor.settle();
    assert_eq!(supervisor.find("late").unwrap().reason, "waits for early");
    assert_eq!(supervisor.find("early").unwrap().reason, "waits for never, which does not exist");
}

#[test]
fn a_console_waits_for_the_configuration_that_may_forbid_its_shell() {
    let mut supervisor = supervisor();
    supervisor.declare_system("console", system("after_configuration = true\ncondition = { path = \"/no/such\" }"));
    supervisor.settle();
    assert_eq!(supervisor.find("console").unwrap().reason, "waits for the configuration");
    supervisor.facts.configured = true;
    supervisor.settle();
    assert!(matches!(supervisor.find("console").unwrap().state, State::Stopped));
}

#[test]
fn a_condition_that_is_not_met_is_no_failure() {
    let mut supervisor = supervisor();
    supervisor.declare_system("agent", system("condition = { path = \"/no/such/path\" }"));
    supervisor.settle();
    assert!(supervisor.all_tried());
    assert_eq!(supervisor.problems(), [""; 0]);
    assert_eq!(supervisor.find("agent").unwrap().reason, "the machine has no /no/such/path");
}

#[test]
fn a_system_container_cannot_be_stopped() {
    let mut supervisor = supervisor();
    let control = service(&mut supervisor, "control");
    let request = Request::Stop { name: "control".into(), ending: Ending::default() };
    let Reply::Refused { reason } = ask(&mut supervisor, &control, request) else { panic!("it is stopped") };
    assert!(reason.contains("`berth restart control`"), "{reason}");
    assert!(supervisor.find("control").unwrap().goal == Goal::Run);
}

#[test]
fn what_was_stopped_by_hand_stays_stopped_if_its_policy_says_so() {
    let text = "[containers.a]\nimage = \"a\"\nrestart = \"unless-stopped\"\n[containers.b]\nimage = \"b\"\n";
    let mut before = supervisor();
    let control = service(&mut before, "control");
    before.apply(configuration(text));
    for name in ["a", "b"] {
        assert_eq!(
            ask(&mut before, &control, Request::Stop { name: name.into(), ending: Ending::default() }),
            Reply::Done
        );
    }
    assert_eq!(before.facts.stopped.iter().collect::<Vec<_>>(), ["a"]);
    assert!(std::mem::take(&mut before.facts.stopped_changed));

    let mut after = supervisor();
    let control = service(&mut after, "control");
    after.facts.stopped = before.facts.stopped.clone();
    after.apply(configuration(text));
    after.settle();
    assert!(matches!(after.find("a").unwrap().state, State::Stopped));
    assert!(matches!(after.find("b").unwrap().state, State::Declared));
    assert_eq!(ask(&mut after, &control, Request::Start { name: "a".into() }), Reply::Done);
    assert!(after.facts.stopped.is_empty() && after.facts.stopped_changed);
    assert!(matches!(after.find("a").unwrap().state, State::Declared));
}

#[test]
fn a_configuration_that_is_taken_back_finds_who_was_stopped_by_hand_stopped() {
    for (policy, beyond) in [("unless-stopped", true), ("always", false)] {
        let text = |image| format!("[containers.a]\nimage = '{image}'\nnetwork_mode = 'none'\nrestart = '{policy}'\n");
        for other in [text("b"), String::new()] {
            let mut world = World::new(&text("a"));
            world.ask(Request::Stop { name: "a".into(), ending: Ending::default() });
            world.supervisor.forget_stopped();
            let stopped = |world: &World| world.supervisor.facts.stopped.contains("a");
            world.apply(&other);
            let state = world.supervisor.find("a").map(|container| container.describe().state);
            assert_eq!(state, (!other.is_empty()).then_some(ContainerState::Declared), "it begins anew");
            assert_eq!(stopped(&world), beyond, "the next boot may find the one before");
            world.apply(&text("a"));
            assert_eq!((world.state("a"), stopped(&world)), (ContainerState::Stopped, beyond));
            world.supervisor.forget_stopped();
            assert_eq!(stopped(&world), beyond);
            // This time it stays.
            world.apply(&other);
            world.supervisor.forget_stopped();
            assert!(!stopped(&world));
            world.apply(&text("a"));
            assert_eq!(world.state("a"), ContainerState::Declared, "{policy} {other}");
        }
    }
}

#[test]
fn what_was_stopped_by_hand_and_is_gone_is_new_when_it_is_declared_again() {
    let text = "[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'unless-stopped'\n";
    let mut world = World::new(text);
    world.ask(Request::Stop { name: "a".into(), ending: Ending::default() });
    world.supervisor.forget_stopped();
    world.apply("");
    world.apply(text);
    assert_eq!(world.state("a"), ContainerState::Stopped, "what removes it may still be taken back");
    world.supervisor.facts.stopped_changed = false;
    world.apply("");
    world.supervisor.forget_stopped();
    assert!(world.supervisor.facts.stopped.is_empty() && world.supervisor.facts.stopped_changed);
    world.apply(text);
    assert_eq!(world.state("a"), ContainerState::Declared);
}

#[test]
fn who_is_depended_on_ends_after_those_who_depend() {
    let text = "[containers.db]\nimage = \"a\"\n[containers.web]\nimage = \"a\"\ndepends_on = [\"db\"]\n\
                [containers.front]\nimage = \"a\"\ndepends_on = [\"web\", \"db\"]\n[containers.alone]\nimage = \"a\"\n";
    let mut supervisor = supervisor();
    supervisor.apply(configuration(text));
    for expected in [&["alone", "front"][..], &["web"], &["db"], &[]] {
        let ids = supervisor.unneeded(Kind::User);
        let names: Vec<String> = ids.iter().map(|id| supervisor.containers.get(*id).unwrap().name.clone()).collect();
        assert_eq!(names, expected);
        ids.iter().for_each(|id| supervisor.containers.get_mut(*id).unwrap().state = State::Stopped);
    }
}

#[test]
fn who_keeps_the_logs_ends_after_those_who_print() {
    let mut supervisor = supervisor();
    for role in ["logs", "control", "engine"] {
        service(&mut supervisor, role);
        supervisor.find_mut(role).unwrap().state = State::Waiting;
    }
    let names = |supervisor: &Supervisor| {
        let name = |id: &u32| supervisor.containers.get(*id).unwrap().name.clone();
        supervisor.unneeded(Kind::System).iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&supervisor), ["control", "engine"]);
    for role in ["control", "engine"] {
        supervisor.find_mut(role).unwrap().state = State::Stopped;
    }
    assert_eq!(names(&supervisor), ["logs"]);
}

#[test]
fn only_some_containers_are_set_up_at_once() {
    use super::dependencies::AT_ONCE;
    let names: Vec<String> = (0..AT_ONCE + 3).map(|number| format!("a{number:02}")).collect();
    let container = |name: &String| format!("[containers.{name}]\nimage = 'a'\nnetwork_mode = 'none'\n");
    let mut world = World::new(&names.iter().map(container).collect::<String>());
    names.iter().for_each(|name| world.prepare(name));
    let in_state = |world: &World, state| names.iter().filter(|name| world.state(name) == state).count();
    assert_eq!(in_state(&world, ContainerState::Starting), AT_ONCE);
    assert_eq!(world.reason(&names[AT_ONCE]), "waits while 16 others are set up");
    world.run(&names[0]);
    world.fail(&names[1]);
    assert_eq!(in_state(&world, ContainerState::Starting), AT_ONCE);
    assert_eq!(in_state(&world, ContainerState::Waiting), 1);
    for name in &names[2..] {
        world.run(name);
    }
    assert_eq!(in_state(&world, ContainerState::Running), names.len() - 1);
}

#[test]
fn a_program_that_ends_before_its_launcher_has_run() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let mut world = World::new("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n");
    world.prepare("job");
    // The launcher's copy of the other end is still open.
    let (report, _launcher) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
    world.execute("job", report);
    world.end("job", 0);
    assert_eq!((world.state("job"), world.reason("job")), (ContainerState::Stopped, "exited with code 0"));
}
