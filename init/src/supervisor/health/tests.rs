use super::*;
use crate::supervisor::world::World;

fn health(text: &str) -> Health {
    let configuration = format!("[containers.a]\nimage = 'x'\n[containers.a.health]\ntcp = 80\n{text}");
    let source = berth_config::Source::new("test".to_owned(), configuration.into_bytes());
    let loaded = berth_config::load(&[source]).unwrap().configuration;
    Health::begin(loaded.containers.values().next().unwrap().health.as_ref().unwrap(), Duration::ZERO)
}

#[test]
fn only_failures_in_a_row_make_it_unhealthy() {
    let mut health = health("retries = 2\n");
    let now = Duration::from_secs(1);
    assert!(!health.count(false, now));
    assert!(health.count(true, now) && health.status == message::Health::Healthy);
    assert!(!health.count(false, now));
    assert!(!health.count(true, now));
    assert!(!health.count(false, now));
    assert!(health.count(false, now) && health.status == message::Health::Unhealthy);
    assert!(health.count(true, now) && health.status == message::Health::Healthy);
}

#[test]
fn failures_do_not_count_in_the_start_period_until_it_was_healthy_once() {
    let mut health = health("retries = 1\nstart_period = '1h'\nstart_interval = '2s'\ninterval = '9s'\n");
    let now = Duration::from_secs(1);
    assert!(!health.count(false, now) && health.status == message::Health::Starting);
    assert_eq!(health.deadline(), now + Duration::from_secs(2));
    assert!(health.count(true, now));
    assert_eq!(health.deadline(), now + Duration::from_secs(9));
    assert!(health.count(false, now) && health.status == message::Health::Unhealthy);
}

#[test]
fn a_check_takes_no_other_reason_away() {
    let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
    world.prepare("web");
    world.run("web");
    let id = world.supervisor.id_of("web").unwrap();
    let web = world.supervisor.containers.get_mut(id).unwrap();
    web.health = Some(health("retries = 1\n"));
    web.reason = "has not said READY=1".to_owned();
    world.supervisor.checked(id, Ok(()));
    assert_eq!(world.reason("web"), "has not said READY=1");
    world.supervisor.checked(id, Err("refused".to_owned()));
    assert_eq!(world.reason("web"), "its health check fails: refused");
    world.supervisor.checked(id, Ok(()));
    assert_eq!(world.reason("web"), "");
}

#[test]
fn a_pause_during_a_check_is_no_failure() {
    let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
    world.prepare("web");
    world.run("web");
    let folder = tempfile::tempdir().unwrap();
    let id = world.supervisor.id_of("web").unwrap();
    let now = world.supervisor.now;
    let web = world.supervisor.containers.get_mut(id).unwrap();
    web.cgroup = folder.path().to_owned();
    // A program that runs in the container and does not end.
    let output = tempfile::tempfile().unwrap().into();
    let deadline = now + Duration::from_secs(5);
    let stage = Stage::Program { number: 7, output, deadline, beginning: Vec::new(), look: None };
    web.health = Some(Health { stage, ..health("retries = 1\ninterval = '30s'\n") });
    world.ask(message::Request::Pause { name: "web".into() });
    world.pass(Duration::from_secs(3600));
    world.ask(message::Request::Unpause { name: "web".into() });
    let health = world.supervisor.find("web").unwrap().health.as_ref().unwrap();
    assert_eq!((health.status(), health.failures()), (message::Health::Starting, 0));
    assert_eq!(health.deadline(), world.supervisor.now + Duration::from_secs(30));
}

#[test]
fn a_check_that_the_end_of_its_container_comes_upon_says_nothing() {
    let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
    world.prepare("web");
    world.run("web");
    let id = world.supervisor.id_of("web").unwrap();
    let output = tempfile::tempfile().unwrap().into();
    let deadline = world.supervisor.now + Duration::from_secs(5);
    let stage = Stage::Program { number: 7, output, deadline, beginning: Vec::new(), look: None };
    let web = world.supervisor.containers.get_mut(id).unwrap();
    web.health = Some(Health { stage, ..health("retries = 1\n") });
    world.ask(message::Request::Stop { name: "web".into(), ending: message::Ending::default() });
    world.supervisor.check_ended(7, &ExecutionEnd { exit_code: 1, reason: String::new() });
    assert_eq!(world.state("web"), message::ContainerState::Stopping);
    let web = world.supervisor.find("web").unwrap();
    assert!(!web.is_unhealthy() && web.reason.is_empty(), "{}", web.reason);
}

#[test]
fn what_a_check_prints_commands_no_terminal() {
    let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
    world.prepare("web");
    world.run("web");
    let id = world.supervisor.id_of("web").unwrap();
    world.supervisor.containers.get_mut(id).unwrap().health = Some(health("retries = 1\n"));
    world.supervisor.checked(id, Err("its program exited with code 1: \x1b]0;x\x07".to_owned()));
    let told = world.supervisor.problems().remove(0);
    assert!(told.ends_with("code 1: \\x1b]0;x\\x07"), "{told:?}");
    let reason = world.supervisor.find("web").unwrap().describe().reason;
    let causes = world.supervisor.why("web").unwrap();
    assert!(!causes.iter().map(|cause| &cause.text).chain([&reason]).any(|text| text.contains(char::is_control)));
}
