//! Pods: containers that run in namespaces of another one. Whoever lends its own is there before them and ends after them;
//! when it ends, they start anew with it.
//!
//! A namespace belongs to a user namespace, and only who is in that one may mount /proc for it or use what others keep in
//! it. So with the IPC or PID namespace of a container comes its user namespace, and its range of host ids.

use std::fs;
use std::path::PathBuf;

use berth_config::{ContainerName, DependencyCondition, IpcMode};
use berth_runtime::spec::NamespaceKind;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, Goal, State};
use super::dependencies::Obstacle;
use super::user_spec::{files_folder, id_mapping};

/// The IPC and PID namespaces of another container, for one that runs in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The other container's first process, as the machine sees it.
    process: i32,
    ipc: bool,
    pid: bool,
    /// Its range of host ids.
    pub slot: u32,
}

impl Pod {
    /// Where the namespace of this kind is, if it is the other container's.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<PathBuf> {
        let name = match kind {
            NamespaceKind::User => "user",
            NamespaceKind::Ipc if self.ipc => "ipc",
            NamespaceKind::Pid if self.pid => "pid",
            _ => return None,
        };
        Some(self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{name}", self.process))
    }

    /// Whether the kernel has ended everything in the other container's PID namespace: its first process has left its
    /// namespaces, and waits for the others to be gone.
    fn is_lost(&self) -> bool {
        self.pid && fs::read_link(self.path("ipc")).is_err()
    }
}

impl Container {
    /// Whether it was killed because the container ended whose PID namespace it was in. The kernel lets that one end
    /// only after all others, so nothing else is known of it yet.
    pub(super) fn has_lost_its_pod(&self) -> bool {
        self.exit_code == 128 + nix::libc::SIGKILL && self.pod.as_ref().is_some_and(Pod::is_lost)
    }

    fn targets(&self) -> impl Iterator<Item = (&'static str, &ContainerName)> {
        self.user().into_iter().flat_map(berth_config::Container::targets)
    }
}

impl Supervisor {
    /// What is missing of the namespaces of others that a container runs in.
    pub(super) fn pod_obstacle(&self, container: &Container) -> Option<Obstacle> {
        container.targets().find_map(|(key, target)| {
            let target = target.as_str();
            self.unmet(target, DependencyCondition::Started).or_else(|| {
                let owner = self.find(target)?;
                let lasting = owner.is_at_rest() && owner.goal != Goal::Remove;
                let what = match key {
                    "network_mode" => "network",
                    "ipc" => "IPC namespace",
                    _ => "PID namespace",
                };
                let runs = matches!(owner.state, State::Running(_));
                (!runs).then(|| Obstacle { reason: format!("waits for {target}, whose {what} it has"), lasting })
            })
        })
    }

    /// The namespaces of the container that this one shares IPC or processes with.
    pub(super) fn pod(&self, container: &Container) -> Option<Pod> {
        let user = container.user()?;
        let (ipc, pid) = (user.ipc.target(), user.pid.target());
        let target = self.find(ipc.or(pid)?.as_str())?;
        Some(Pod { process: target.pid()?, ipc: ipc.is_some(), pid: pid.is_some(), slot: target.slot })
    }

    /// A container has ended: those in its namespaces are without them, and start anew with it, unless they are to end anyway.
    pub(super) fn restart_sharers(&mut self, name: &str) {
        let shares = |container: &&Container| {
            container.may_have_processes() && container.targets().any(|(_, target)| target.as_str() == name)
        };
        let goal = |container: &Container| if container.goal.goes_on() { Goal::Restart } else { container.goal };
        let sharers = self.containers.values().filter(shares).map(|container| (container.id, goal(container)));
        for (id, goal) in sharers.collect::<Vec<_>>() {
            self.stop(id, goal);
        }
    }
}

/// The /dev/shm that a container has in common with others; `None` for one of its own.
pub(super) fn common_memory(name: &str, ipc: &IpcMode) -> Option<PathBuf> {
    let owner = match ipc {
        IpcMode::Private => return None,
        IpcMode::Shareable => name,
        IpcMode::Container(target) => target.as_str(),
    };
    Some(files_folder(owner).join("shm"))
}

/// Makes the /dev/shm of a container that others share, empty, where they find it.
pub(super) fn make_common_memory(container: &Container) -> Result<(), String> {
    let Some(user) = container.user().filter(|user| user.ipc == IpcMode::Shareable) else { return Ok(()) };
    let Some(path) = common_memory(&container.name, &user.ipc) else { return Ok(()) };
    remove_common_memory(container);
    crate::mounts::make_folder(&path, 0o700)?;
    let root = match user.security.user_namespace {
        berth_config::UserNamespace::Auto => id_mapping(container.slot).host_id,
        berth_config::UserNamespace::Host => 0,
    };
    let options = format!("mode=1777,size={},uid={root},gid={root}", user.shm_size().bytes());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|error| format!("mount {}: {error}", path.display()))
}

/// Takes it away; who still has it mounted keeps it until the end.
pub(super) fn remove_common_memory(container: &Container) {
    if container.user().is_some_and(|user| user.ipc == IpcMode::Shareable) {
        // EINVAL and ENOENT: it is not there.
        let _ = umount2(&files_folder(&container.name).join("shm"), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Running, Starting, Stopped, Stopping, Waiting};
    use berth_control::message::Request;

    use super::*;
    use crate::supervisor::world::World;

    const TWO: &str = "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\nipc = 'shareable'\n\
         [containers.side]\nimage = 'a'\nnetwork_mode = 'none'\nipc = 'container:db'\npid = 'container:db'\n\
         restart = 'no'\n";

    fn running() -> World {
        let mut world = World::new(TWO);
        world.prepare("side");
        assert_eq!((world.state("side"), world.reason("side")), (Waiting, "waits for db"));
        world.prepare("db");
        world.run("db");
        assert_eq!(world.state("side"), Starting);
        world.run("side");
        world
    }

    #[test]
    fn a_container_joins_the_namespaces_it_names_and_the_user_namespace_with_them() {
        let world = running();
        let find = |name| world.supervisor.find(name).unwrap();
        let (db, pod) = (find("db"), find("side").pod.clone().unwrap());
        assert_eq!((pod.slot, find("side").ids()), (db.slot, db.slot));
        assert_ne!(find("side").slot, db.slot);
        for (kind, name) in [(NamespaceKind::Ipc, "ipc"), (NamespaceKind::Pid, "pid"), (NamespaceKind::User, "user")] {
            let path = PathBuf::from(format!("/proc/{}/ns/{name}", db.pid().unwrap()));
            assert_eq!(pod.namespace(kind), Some(path));
        }
        assert_eq!(pod.namespace(NamespaceKind::Network), None);
        let common = common_memory("side", &find("side").user().unwrap().ipc);
        assert_eq!(common, common_memory("db", &IpcMode::Shareable));
    }

    #[test]
    fn who_shares_starts_anew_with_the_other_one() {
        let mut world = running();
        world.end("db", 1);
        assert_eq!(world.state("side"), Stopping);
        world.end("side", 0);
        assert_eq!((world.state("side"), world.reason("side")), (Waiting, "waits for db"));
    }

    #[test]
    fn who_shares_with_a_job_that_has_completed_is_a_problem() {
        let mut world = World::new(
            "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n\
             [containers.side]\nimage = 'a'\nnetwork_mode = 'container:job'\n",
        );
        world.complete("job", 0);
        world.prepare("side");
        assert_eq!(world.supervisor.problems(), ["container side: waits for job, whose network it has"]);
        world.ask(Request::Start { name: "job".into() });
        assert_eq!(world.supervisor.problems(), [""; 0]);
        world.run("job");
        assert_eq!(world.state("side"), Starting);
    }

    #[test]
    fn who_survives_its_stop_signal_ends_with_the_other_one() {
        let mut world = running();
        world.ask(Request::Kill { name: "side".into(), signal: nix::libc::SIGTERM });
        assert_eq!(world.state("side"), Running);
        world.end("db", 1);
        assert_eq!(world.state("side"), Stopping);
        world.end("side", 0);
        assert_eq!(world.state("side"), Stopped);
    }

    #[test]
    fn what_the_kernel_kills_with_the_pid_namespace_is_no_failure() {
        let mut world = running();
        // No process has the number of a test's, so its namespaces are gone like those of one that has ended.
        world.end("side", 128 + 9);
        assert_eq!(world.state("side"), Starting);
        world.run("side");
        world.end("side", 1);
        assert!(!matches!(world.state("side"), Starting | Waiting | Running), "{:?}", world.state("side"));
    }

    #[test]
    fn who_ends_for_the_sake_of_the_other_one_has_as_many_failures_as_before() {
        use berth_control::message::ContainerState::{Backoff, Failed};
        let mut world = World::new(&TWO.replace("'no'", "'on-failure:1'"));
        world.prepare("side");
        world.prepare("db");
        let again = |world: &mut World, code: i32| {
            world.end("db", 1);
            world.end("side", code);
            world.pass(std::time::Duration::from_secs(60));
            world.run("db");
            world.run("side");
        };
        world.run("db");
        world.run("side");
        again(&mut world, 128 + 15);
        again(&mut world, 128 + 9);
        world.end("side", 1);
        assert_eq!(world.state("side"), Backoff, "its first failure");
        world.pass(std::time::Duration::from_secs(60));
        world.run("side");
        again(&mut world, 0);
        world.end("side", 1);
        assert_eq!(world.state("side"), Failed, "its second one");
    }

    #[test]
    fn who_shares_ends_first_when_the_machine_goes_down() {
        let mut world = running();
        world.supervisor.begin_shutdown();
        world.supervisor.stop_unneeded(berth_control::message::Kind::User);
        assert_eq!((world.state("side"), world.state("db")), (Stopping, Running));
    }
}
