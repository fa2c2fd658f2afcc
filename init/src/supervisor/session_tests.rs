//! Clients that talk to a container.

use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_control::channel::Channel;
use berth_control::message::ContainerState::{Backoff, Failed, Running, Waiting};
use berth_control::message::{
    Creation, FromClient, FromInit, Interest, Notice, Reply, Request, SessionStream, ToClient,
};

use super::made_tests::{WEB, creation, ended, make, once, run, told, world};
use super::world::{World, service};

#[test]
fn a_session_lasts_as_long_as_the_container_is_started_again() {
    let mut world = world("");
    let again = Creation { start: true, ..creation("job", "restart = 'on-failure:1'") };
    let session = run(&mut world, again, Interest::State);
    world.prepare("job");
    world.run("job");
    world.end("job", 1);
    assert_eq!(world.state("job"), Backoff);
    assert_eq!(told(&session), [ToClient::Running]);
    world.pass(Duration::from_secs(1));
    world.run("job");
    world.end("job", 7);
    assert_eq!(told(&session), [ToClient::Running, ended(7, "")]);
    assert_eq!(world.state("job"), Failed);
    // It is there until somebody removes it, and no problem of the machine.
    world.ask(Request::Remove { name: "job".into(), force: false, volumes: false });
    assert!(world.supervisor.find("job").is_none());
}

#[test]
fn a_client_comes_and_goes_and_another_one_takes_its_place() {
    let mut world = world(WEB);
    world.prepare("web");
    let attach = || Request::Attach { name: "web".into(), start: false };
    assert!(matches!(world.ask_for(attach()).0, Reply::Refused { reason } if reason.contains("berth start web")));
    assert!(matches!(world.ask_for(Request::Attach { name: "engine".into(), start: true }).0, Reply::Refused { .. }));
    world.run("web");
    let logs = service(&mut world.supervisor, "logs");
    world.supervisor.find_mut("logs").unwrap().ready = true;
    let open = |world: &mut World| {
        let (_, descriptors) = world.ask_for(attach());
        Channel::from(descriptors.into_iter().next().unwrap())
    };
    let first = open(&mut world);
    // What a client prints is kept by `logs`, which reads the container's own pipes no more.
    let (_, descriptors) = first.receive::<ToClient>().unwrap();
    assert_eq!(descriptors.len(), 2);
    let notices = || -> Vec<(Notice, Vec<OwnedFd>)> {
        let received = std::iter::from_fn(|| logs.1.receive::<FromInit>().ok());
        let notice = |(message, descriptors)| match message {
            FromInit::Notice(notice) => Some((notice, descriptors)),
            FromInit::Reply { .. } => None,
        };
        received.filter_map(notice).collect()
    };
    let given = notices();
    assert!(matches!(&given[0].0, Notice::LogRelease { container } if container == "web"));
    assert_eq!(given.len(), 3, "{given:?}");
    let second = open(&mut world);
    first.set_nonblocking().unwrap();
    assert_eq!(told(&first).last(), Some(&ToClient::Replaced));
    notices();
    drop(second);
    let id = world.supervisor.find("web").unwrap().id;
    world.supervisor.session(id);
    assert!(world.supervisor.find("web").unwrap().session.is_none());
    assert_eq!(notices().len(), 2, "logs reads the pipes again");
    assert_eq!(world.state("web"), Running);
}

#[test]
fn who_starts_a_container_with_a_client_sees_each_run_from_its_beginning() {
    let mut world = world("");
    assert_eq!(make(&mut world, creation("job", "restart = 'no'")), Reply::Done);
    for code in [4, 5] {
        let (reply, descriptors) = world.ask_for(Request::Attach { name: "job".into(), start: true });
        assert_eq!(reply, Reply::Done);
        let session = Channel::from(descriptors.into_iter().next().unwrap());
        session.set_nonblocking().unwrap();
        if code == 4 {
            world.prepare("job");
        }
        world.run("job");
        world.end("job", code);
        let streams = [SessionStream::Output, SessionStream::Error].map(ToClient::Stream);
        let expected = streams.into_iter().chain([ToClient::Running, ended(code as u8, "")]);
        assert_eq!(told(&session), expected.collect::<Vec<_>>());
    }
    assert!(matches!(world.ask_for(Request::Attach { name: "nobody".into(), start: true }).0, Reply::Refused { .. }));
}

#[test]
fn who_starts_a_container_with_a_timer_sees_one_run_to_its_end() {
    let start = |world: &mut World| {
        let (reply, descriptors) = world.ask_for(Request::Attach { name: "job".into(), start: true });
        assert_eq!(reply, Reply::Done);
        let session = Channel::from(descriptors.into_iter().next().unwrap());
        session.set_nonblocking().unwrap();
        session
    };
    for timer in ["schedule = 'daily'", "every = '1h'"] {
        let mut world = world(&format!("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\n{timer}\n"));
        // The first one before its image is there.
        for code in [4, 0] {
            let session = start(&mut world);
            if code == 4 {
                world.prepare("job");
            }
            world.run("job");
            world.end("job", code);
            assert_eq!(world.state("job"), Waiting, "{timer}");
            assert_eq!(told(&session).last(), Some(&ended(code as u8, "")), "{timer}");
            assert!(world.supervisor.find("job").unwrap().session.is_none());
        }
        let session = start(&mut world);
        world.fail("job");
        let Some(ToClient::Ended(end)) = told(&session).pop() else { panic!("{timer}") };
        assert!(end.exit_code == 125 && end.reason.starts_with("a test says so"), "{end:?}");
    }
}

#[test]
fn a_client_closes_the_input_and_the_other_way_round() {
    let mut world = world("");
    let session = run(&mut world, once("job"), Interest::Streams);
    world.prepare("job");
    world.run("job");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let container = world.supervisor.find_mut("job").unwrap();
    container.interaction.input = Some(writer.into());
    let id = container.id;
    session.send(&FromClient::CloseInput, &[]).unwrap();
    session.send(&FromClient::Signal(15), &[]).unwrap();
    world.supervisor.session(id);
    assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0));
    assert!(world.supervisor.find("job").unwrap().session.is_some());
}
