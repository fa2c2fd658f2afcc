use std::os::fd::{AsRawFd, OwnedFd};

use berth_control::message::{ContainerState, Interest};

use super::world::World;
use super::world::reexecution::be_alone;

const TEXT: &str = "
[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\n
[containers.b]\nimage = 'b'\nnetwork_mode = 'none'\n
";

fn world() -> World {
    be_alone();
    let mut world = World::new(TEXT);
    for name in ["a", "b"] {
        world.prepare(name);
        world.run(name);
    }
    world
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

#[test]
fn what_was_closed_in_the_round_of_a_defect_takes_no_container_along() {
    let mut world = world();
    let id = world.supervisor.id_of("a").unwrap();
    let client = world.supervisor.open_session(id, Interest::Streams).unwrap();
    let input = pipe();
    world.supervisor.containers.get_mut(id).unwrap().interaction.input = Some(input.1.into());
    let record = world.write_down();
    // The round that the defect ends: the client goes, the container ends, and its numbers are other files'.
    world.supervisor.close_session(id);
    world.end("a", 1);
    world.end("b", 1);
    let others: Vec<_> = (0..8).map(|_| pipe()).collect();
    let mut own: Vec<_> = others.iter().flat_map(|(one, two)| [one.as_raw_fd(), two.as_raw_fd()]).collect();
    own.extend([client.as_raw_fd(), input.0.as_raw_fd()]);
    world.resume(&record, &own);
    assert_eq!([world.state("a"), world.state("b")], [ContainerState::Running; 2]);
    let a = world.supervisor.find("a").unwrap();
    assert!(a.session.is_some());
    nix::unistd::write(a.interaction.input.as_ref().unwrap(), b"word").unwrap();
    assert_eq!(nix::unistd::read(&input.0, &mut [0; 8]), Ok(4));
    // Both have ended, and nobody is going to say so again.
    world.supervisor.put_right();
    world.supervisor.settle();
    assert_eq!([world.state("a"), world.state("b")], [ContainerState::Backoff; 2]);
}

#[test]
fn what_could_not_be_read_is_declared_anew() {
    let mut world = world();
    let mut record = world.write_down();
    let lost = world.supervisor.id_of("b").unwrap();
    record.containers.insert(lost, "{}".to_owned());
    world.resume(&record, &[]);
    assert!(world.supervisor.find("b").is_none());
    world.supervisor.declare_missing();
    world.supervisor.settle();
    assert_eq!((world.state("a"), world.state("b")), (ContainerState::Running, ContainerState::Declared));
    assert_ne!(world.supervisor.id_of("b").unwrap(), lost);
    let slots = ["a", "b"].map(|name| world.supervisor.find(name).unwrap().slot);
    assert_ne!(slots[0], slots[1]);
}
