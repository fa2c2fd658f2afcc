//! org.berth.Machine1: the machine as a whole.

use std::os::fd::AsFd;
use std::sync::Arc;

use berth_control::dbus::{self, ApiError, Step};
use berth_control::message::{Link, Machine, MachineState, PowerAction, Reply, Request};
use zbus::object_server::SignalEmitter;
use zbus::wire::OwnedFd;

use crate::caller::Caller;
use crate::init::unexpected;
use crate::server::Subscription;
use crate::sheet;

/// Serves the interface to one client.
pub struct Machine1 {
    /// Who knows the answers.
    pub init: Caller,
    /// Whether the client wants signals.
    pub subscription: Arc<Subscription>,
}

impl Machine1 {
    /// For a property: the machine, or the error a property can have.
    async fn machine(&self) -> zbus::fdo::Result<Machine> {
        self.init.machine().await.map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }

    async fn power(&self, action: PowerAction) -> Result<(), ApiError> {
        self.init.done(Request::Power(action)).await
    }
}

// `spawn = false`: one call of a client at a time, so that a client waits for itself and never for another.
#[zbus::interface(name = "org.berth.Machine1", spawn = false, introspection_docs = false)]
impl Machine1 {
    async fn describe(&self) -> Result<dbus::Machine, ApiError> {
        Ok(self.init.machine().await?.into())
    }

    async fn timeline(&self) -> Result<Vec<Step>, ApiError> {
        match self.init.call(Request::Timeline).await? {
            Reply::Timeline(steps) => Ok(steps.into_iter().map(Step::from).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn boots(&self) -> Result<Vec<dbus::Boot>, ApiError> {
        match self.init.call(Request::Boots).await? {
            Reply::Boots(boots) => Ok(boots.into_iter().map(dbus::Boot::from).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn configuration(&self) -> Result<String, ApiError> {
        self.init.text(Request::Configuration).await
    }

    async fn audit(&self) -> Result<String, ApiError> {
        self.init.text(Request::Audit).await
    }

    async fn power_off(&self) -> Result<(), ApiError> {
        self.power(PowerAction::PowerOff).await
    }

    async fn reboot(&self) -> Result<(), ApiError> {
        self.power(PowerAction::Reboot).await
    }

    async fn halt(&self) -> Result<(), ApiError> {
        self.power(PowerAction::Halt).await
    }

    async fn plan(&self, files: Vec<(String, String)>) -> Result<String, ApiError> {
        self.init.with_sheet(Request::Plan, &files).await
    }

    async fn apply(&self, files: Vec<(String, String)>, confirm_ms: u64) -> Result<String, ApiError> {
        let confirm_ms = (confirm_ms > 0).then_some(confirm_ms);
        self.init.with_sheet(Request::Apply { confirm_ms }, &files).await
    }

    async fn plan_files(&self, files: OwnedFd) -> Result<String, ApiError> {
        self.plan(sheet::read(files.into())?).await
    }

    async fn apply_files(&self, files: OwnedFd, confirm_ms: u64) -> Result<String, ApiError> {
        self.apply(sheet::read(files.into())?, confirm_ms).await
    }

    async fn confirm(&self) -> Result<(), ApiError> {
        self.init.done(Request::Confirm).await
    }

    async fn reexecute(&self) -> Result<(), ApiError> {
        self.init.done(Request::Reexecute).await
    }

    async fn reexecute_program(&self, program: OwnedFd) -> Result<(), ApiError> {
        self.init.done_with(Request::Reexecute, &[program.as_fd()]).await
    }

    async fn subscribe(&self) -> Result<(), ApiError> {
        self.subscription.begin()
    }

    #[zbus(property)]
    async fn hostname(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.hostname)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.version)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn kernel(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.kernel)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn slot(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.slot)
    }

    #[zbus(property)]
    async fn state(&self) -> zbus::fdo::Result<MachineState> {
        Ok(self.machine().await?.state)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn uptime_ms(&self) -> zbus::fdo::Result<u64> {
        Ok(self.machine().await?.uptime_ms)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn problems(&self) -> zbus::fdo::Result<Vec<String>> {
        Ok(self.machine().await?.problems)
    }

    /// Name, hardware address, carrier, addresses of each link.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn links(&self) -> zbus::fdo::Result<Vec<(String, String, bool, Vec<String>)>> {
        let fields = |link: Link| (link.name, link.mac, link.carrier, link.addresses);
        Ok(self.machine().await?.links.into_iter().map(fields).collect())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn watchdog(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.watchdog)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn state_storage(&self) -> zbus::fdo::Result<String> {
        Ok(self.machine().await?.state_storage)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn configuration_sources(&self) -> zbus::fdo::Result<Vec<String>> {
        Ok(self.machine().await?.configuration_sources)
    }

    /// The machine's state has changed to this.
    #[zbus(signal)]
    pub async fn machine_changed(emitter: &SignalEmitter<'_>, state: MachineState) -> zbus::Result<()>;

    /// That many signals were left out.
    #[zbus(signal)]
    pub async fn missed(emitter: &SignalEmitter<'_>, count: u64) -> zbus::Result<()>;
}
