//! What a client in a container gets: the parts that its configuration names.

use std::path::Path;

use berth_config::ApiPart;
use berth_control::dbus::{ApiError, Containers1Proxy, Creation, LogQuery, Machine1Proxy};
use berth_control::message::{Ending, MachineState, Notice, Request};
use futures_util::StreamExt;

use crate::machine::{Api, container};

async fn proxies(path: &Path) -> zbus::Result<(zbus::Connection, Machine1Proxy<'static>, Containers1Proxy<'static>)> {
    let address = format!("unix:path={}", path.display());
    let connection = zbus::connection::Builder::address(address.as_str()).p2p().build().await?;
    let machine = Machine1Proxy::new(&connection).await?;
    let containers = Containers1Proxy::new(&connection).await?;
    Ok((connection, machine, containers))
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>, part: &str) {
    let Err(ApiError::Refused(reason)) = result else { panic!("{part}: {result:?}") };
    assert!(reason.contains("watcher") && reason.contains(part), "{reason}");
}

#[tokio::test]
async fn a_container_may_do_what_its_configuration_names_and_nothing_else() {
    let api = Api::start().await;
    let path = api.grant("watcher", &[ApiPart::ContainersList, ApiPart::ContainersRestart], 0);
    let (_connection, machine, containers) = proxies(&path).await.unwrap();
    assert_eq!(containers.list().await.unwrap().len(), 2);
    assert_eq!(containers.inspect("web").await.unwrap().name, "web");
    containers.restart("web").await.unwrap();
    api.asked.lock().unwrap().clear();
    refusal(containers.stop("web").await, "containers.stop");
    refusal(containers.kill("web", 9).await, "containers.kill");
    refusal(containers.statistics().await, "containers.statistics");
    refusal(containers.logs("web", LogQuery::default()).await, "containers.logs");
    refusal(containers.attach("web").await, "containers.attach");
    refusal(containers.create("[containers.a]\nimage = \"a\"\n", Creation::default()).await, "containers.create");
    refusal(machine.describe().await, "machine.describe");
    refusal(machine.configuration().await, "machine.configuration");
    refusal(machine.audit().await, "machine.configuration");
    refusal(containers.definition("web").await, "machine.configuration");
    refusal(machine.plan(&[("a", "")]).await, "machine.apply");
    refusal(machine.reboot().await, "machine.power");
    refusal(machine.subscribe().await, "events");
    let properties = zbus::Proxy::new(&_connection, "org.berth", "/org/berth", "org.berth.Machine1").await.unwrap();
    assert!(properties.get_property::<String>("Hostname").await.is_err());
    assert_eq!(*api.asked.lock().unwrap(), [], "PID 1 was asked all the same");
    // The machine's own socket is as it was.
    api.proxies().await.1.stop("web").await.unwrap();
    assert_eq!(*api.asked.lock().unwrap(), [Request::Stop { name: "web".into(), ending: Ending::default() }]);
}

#[tokio::test]
async fn which_program_pid_1_becomes_is_not_for_containers() {
    let api = Api::start().await;
    let path = api.grant("watcher", &[ApiPart::MachineReexecute, ApiPart::MachineApply], 0);
    let (_connection, machine, _) = proxies(&path).await.unwrap();
    let program = || std::os::fd::OwnedFd::from(std::fs::File::open("/dev/null").unwrap()).into();
    refusal(machine.reexecute_program(program()).await, "which program PID 1 becomes");
    assert_eq!(*api.asked.lock().unwrap(), [], "PID 1 was asked all the same");
    machine.reexecute().await.unwrap();
    api.proxies().await.0.reexecute_program(program()).await.unwrap();
    assert_eq!(*api.asked.lock().unwrap(), [Request::Reexecute, Request::Reexecute]);
}

#[tokio::test]
async fn events_come_without_the_machine_being_seen() {
    let api = Api::start().await;
    let path = api.grant("watcher", &[ApiPart::Events], 0);
    let (_connection, machine, containers) = proxies(&path).await.unwrap();
    let mut states = machine.receive_machine_changed().await.unwrap();
    let mut changes = containers.receive_container_changed().await.unwrap();
    machine.subscribe().await.unwrap();
    refusal(containers.sizes().await, "containers.list");
    api.notify(Notice::MachineChanged(MachineState::Degraded));
    assert_eq!(*states.next().await.unwrap().args().unwrap().state(), MachineState::Degraded);
    let web = container("web", berth_control::message::Kind::User);
    api.notify(Notice::ContainerChanged(Box::new(web)));
    assert_eq!(changes.next().await.unwrap().args().unwrap().container().name, "web");
}

#[tokio::test]
async fn clients_go_with_their_container_and_stay_when_pid_1_tells_it_again() {
    let api = Api::start().await;
    let path = api.directory.path().join("watcher.sock");
    let listener = berth_control::listener::listen_on(&path, nix::sys::socket::SockType::Stream).unwrap();
    let parts = [ApiPart::ContainersList];
    api.grant_listener("watcher", &parts, 0, &listener);
    let (connection, _, containers) = proxies(&path).await.unwrap();
    api.grant_listener("watcher", &parts, 0, &listener);
    assert_eq!(containers.list().await.unwrap().len(), 2);
    api.notify(Notice::ApiClosed { container: "watcher".into() });
    connection.closed().await;
    // A user of the machine that is not one of the container's is nobody there.
    let path = api.grant("other", &parts, 1000);
    assert!(proxies(&path).await.is_err());
}
