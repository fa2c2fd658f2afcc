//! The way down: user containers, system containers, `logs` after the others, what is left, file systems, power. Each
//! phase has an end.
//!
//! Within the first two, a container is asked to end once all that depend on it have ended.

use std::path::Path;
use std::time::Duration;

use berth_control::message::{Kind, PowerAction};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::storage::state::STATE_PATH;
use crate::storage::user_data::USER_DATA_PATH;
use crate::supervisor::Supervisor;
use crate::{boots, clock};

/// The longest that user containers are waited for, whatever grace period they name.
const USER_TIME: Duration = Duration::from_secs(120);
/// The longest that system containers are waited for: with the 5 s of a user container that does not listen, and what `logs`
/// takes, the machine is off within 10 s.
const SYSTEM_TIME: Duration = Duration::from_secs(3);
/// The longest that `logs` may take for the last words of the others, once they have ended.
const LOGS_TIME: Duration = Duration::from_secs(2);
/// The longest that the disks may take. What they have not taken by then is lost, which is better than a machine that
/// hangs at its end for ever.
pub const UNMOUNT_TIME: Duration = Duration::from_secs(20);

/// Where the way down has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    UserContainers,
    SystemContainers,
    Logs,
    Unmounting,
    Done,
}

/// A shutdown under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shutdown {
    action: PowerAction,
    /// Who or what wanted it.
    reason: String,
    phase: Phase,
    deadline: Duration,
}

impl Shutdown {
    /// From now on nothing is started; the containers are asked to end by [`Self::advance`].
    pub fn begin(supervisor: &mut Supervisor, action: PowerAction, reason: &str) -> Self {
        supervisor.begin_shutdown();
        let reason = reason.to_owned();
        Self { action, reason, phase: Phase::UserContainers, deadline: clock::since_boot() + USER_TIME }
    }

    /// What is to come of it.
    pub fn action(&self) -> PowerAction {
        self.action
    }

    /// What the list of boots is to say of it.
    pub fn reason(&self) -> String {
        format!("{}, by {}", self.action.name(), self.reason)
    }

    /// When the present phase ends at the latest, on [`crate::clock`].
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What to do with the power, once everything else is done.
    pub fn finished(&self) -> Option<PowerAction> {
        (self.phase == Phase::Done).then_some(self.action)
    }

    /// Whether the last task has been started.
    pub fn is_unmounting(&self) -> bool {
        matches!(self.phase, Phase::Unmounting | Phase::Done)
    }

    /// The unmounting task has ended.
    pub fn unmounted(&mut self) {
        self.phase = Phase::Done;
    }

    /// Goes on to the next phase if this one is over. True: it is time to start [`unmount`] in a task.
    pub fn advance(&mut self, supervisor: &mut Supervisor) -> bool {
        let late = clock::since_boot() >= self.deadline;
        match self.phase {
            Phase::UserContainers => {
                supervisor.stop_unneeded(Kind::User);
                if late {
                    supervisor.kill_all(Kind::User);
                }
                if late || !supervisor.any_alive(Kind::User) {
                    supervisor.stop_unneeded(Kind::System);
                    self.phase = Phase::SystemContainers;
                    self.deadline = clock::since_boot() + SYSTEM_TIME;
                }
                false
            }
            Phase::SystemContainers => {
                supervisor.stop_unneeded(Kind::System);
                if late {
                    supervisor.kill_all(Kind::System);
                }
                if !late && supervisor.any_speaks() {
                    return false;
                }
                self.phase = Phase::Logs;
                self.deadline = clock::since_boot() + LOGS_TIME;
                self.advance(supervisor)
            }
            Phase::Logs => {
                supervisor.stop_unneeded(Kind::System);
                if !late && supervisor.any_alive(Kind::System) {
                    return false;
                }
                // Everything that is left, such as what an operator has started. EPERM and ESRCH: there is nothing.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                self.phase = Phase::Unmounting;
                self.deadline = clock::since_boot() + UNMOUNT_TIME;
                true
            }
            Phase::Unmounting if late => {
                log::error!("the disks do not answer: what they have not written is lost");
                self.phase = Phase::Done;
                false
            }
            Phase::Unmounting | Phase::Done => false,
        }
    }
}

/// Writes down that the boot ends and why, and brings what persists onto the disks. Runs in a task. What went wrong
/// comes back, a sentence each.
pub fn unmount(slot: &str, reason: &str) -> Vec<String> {
    let mut problems = Vec::from_iter(boots::end(Path::new(boots::PATH), slot, reason).err());
    nix::unistd::sync();
    // EINVAL: there was none.
    match umount2(USER_DATA_PATH, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL) => {}
        Err(error) => problems.push(format!("unmount {USER_DATA_PATH}: {error}")),
    }
    if let Err(error) = umount2(STATE_PATH, MntFlags::UMOUNT_NOFOLLOW) {
        // In use, by a process that is only just dying: read-only is as safe.
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(second) = mount(None::<&str>, STATE_PATH, None::<&str>, flags, None::<&str>) {
            problems.push(format!("unmount {STATE_PATH}: {error}; make it read-only: {second}"));
        }
    }
    nix::unistd::sync();
    problems
}

/// Hands the machine back to the firmware. Returns only if the kernel refuses.
pub fn end(action: PowerAction) {
    let mode = match action {
        PowerAction::PowerOff => RebootMode::RB_POWER_OFF,
        PowerAction::Reboot => RebootMode::RB_AUTOBOOT,
        PowerAction::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    match reboot(mode) {
        Ok(never) => match never {},
        Err(error) => log::error!("{action:?}: {error}"),
    }
}
