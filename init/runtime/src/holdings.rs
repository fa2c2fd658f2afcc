//! What the launcher makes on the host for a container, and takes back when the container does not come to be.
//!
//! Must not outlive the launcher: what stays (the cgroup, the class of resctrl) is removed by whoever deletes the
//! container.

use std::os::fd::OwnedFd;

use crate::cgroup::{self, Cgroup};
use crate::create::Request;
use crate::error::{Error, Step};
use crate::namespaces::Namespaces;
use crate::resctrl::Class;
use crate::seccomp::{self, Filter};
use crate::spec::Linux;

/// What a container has on the host besides its process.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// Who answers SCMP_ACT_NOTIFY.
    pub agent: Option<OwnedFd>,
    pub cgroup: Option<Cgroup>,
    class: Option<Class>,
    /// Whether the device rules are put in force while the container's process sets itself up: the kernel takes its time
    /// over them.
    rules_wait: bool,
}

impl Holdings {
    /// Makes everything, but for device rules that can wait. On failure nothing is left.
    pub(crate) fn prepare(
        request: &Request<'_>,
        linux: &Linux,
        filter: Option<&Filter>,
        namespaces: &Namespaces,
    ) -> Result<Self, Error> {
        let agent = match (filter, &linux.seccomp) {
            (Some(filter), Some(profile)) => seccomp::connect(filter, profile)?,
            _ => None,
        };
        let mut this = Self { agent, cgroup: None, class: None, rules_wait: rules_can_wait(request, namespaces) };
        match this.fill(request, linux) {
            Ok(()) => Ok(this),
            Err(error) => {
                this.discard();
                Err(error)
            }
        }
    }

    fn fill(&mut self, request: &Request<'_>, linux: &Linux) -> Result<(), Error> {
        if let Some(path) = &request.cgroup {
            let cgroup = Cgroup::create(path, linux.resources.as_ref()).step("set up the cgroup")?;
            let cgroup = self.cgroup.insert(cgroup);
            if let Some(owner) = cgroup::wanted_owner(request.spec) {
                cgroup.give_to(owner).step("give the container its cgroup")?;
            }
            if !self.rules_wait {
                self.restrict_devices(linux)?;
            }
        }
        if let Some(rdt) = &linux.intel_rdt {
            self.class = Some(Class::prepare(rdt, request.id).step("set up linux.intelRdt")?);
        }
        Ok(())
    }

    /// What of the device rules had to wait.
    pub(crate) fn restrict_devices_late(&self, linux: &Linux) -> Result<(), Error> {
        if self.rules_wait { self.restrict_devices(linux) } else { Ok(()) }
    }

    fn restrict_devices(&self, linux: &Linux) -> Result<(), Error> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        cgroup.restrict_devices(linux.resources.as_ref(), &linux.devices).step("set up the cgroup")
    }

    /// Puts the container's process into its class of resctrl.
    pub(crate) fn assign(&self, pid: i32) -> Result<(), Error> {
        self.class.as_ref().map_or(Ok(()), |class| class.assign(pid)).step("set up linux.intelRdt")
    }

    pub(crate) fn discard(&self) {
        self.class.iter().for_each(Class::discard);
        self.cgroup.iter().for_each(Cgroup::discard);
    }
}

/// Nothing of the container runs before the launcher is done but hooks of its own; and a launcher that joins namespaces
/// may lose its rights.
fn rules_can_wait(request: &Request<'_>, namespaces: &Namespaces) -> bool {
    let hooks = request.spec.hooks.as_ref();
    hooks.is_none_or(|hooks| hooks.create_container.is_empty()) && !namespaces.any_joined()
}
