//! The machine as PID 1 keeps it, and the loop that everything happens in.

mod apply;
mod condition;
mod down;
mod faults;
mod keep;
mod kept;
mod power;
mod program;
mod recording;
mod rest;
mod watchdog;
mod why;
mod work;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use berth_control::message::{Link, MachineState, Network, PowerAction, Reply};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use self::apply::{Purpose, Unconfirmed};
pub(crate) use self::keep::watched;
use self::kept::{Held, Unkept};
use self::recording::ToRecord;
use self::rest::Rest;
use self::watchdog::ToNote;
use self::work::Work;
use crate::clock;
use crate::command_line::CommandLine;
use crate::configuration;
use crate::handover::{self, Handover};
use crate::power_button::PowerButton;
use crate::pressure::Pressure;
use crate::reactor::{Reactor, Token};
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::storage;
use crate::supervisor::{Applicant, Outcome, Supervisor};
use crate::task::Task;
use crate::timeline::Timeline;
use crate::uevent::Uevents;
use crate::watchdog::Watchdog;

/// How long a boot may stay without having tried everything before it counts as over, and as degraded.
const BOOT_TIME: Duration = Duration::from_secs(120);

/// How long the console waits for a configuration that may come from a broken disk.
const CONFIGURATION_TIME: Duration = Duration::from_secs(30);

/// The signals that PID 1 acts on: its children's ends, Ctrl-Alt-Del, power failure, busybox's three for going down, and
/// those that tests of defects send (`berth.faults`, see [`faults`]).
pub(crate) const SIGNALS: [Signal; 9] = [
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGPWR,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGXCPU,
];

/// Everything that PID 1 knows.
#[derive(Debug)]
pub struct Machine {
    reactor: Rc<Reactor>,
    signals: SignalFd,
    clock_settings: clock::Settings,
    uevents: Option<Uevents>,
    power_buttons: Vec<PowerButton>,
    pressure: Option<Pressure>,
    tasks: Registry<Work>,
    handover: Option<Handover>,
    rest: Rest,
    /// What PID 1 is about to become, if that is another program.
    program: Option<OwnedFd>,
    /// Where the next boot finds what it is to know of containers and configuration.
    folder: PathBuf,
    /// Since it was last written down.
    pub(crate) configuration_changed: bool,
    /// The containers.
    pub supervisor: Supervisor,
    /// The boot's steps.
    pub timeline: Timeline,
    /// The kernel command line.
    pub command_line: CommandLine,
    /// What came of the configuration; `None` while it is read for the first time.
    pub configuration: Option<configuration::Report>,
    /// What else there is to know.
    pub facts: Facts,
}

/// What PID 1 knows of the machine beside its containers and its configuration.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Where the machine is.
    pub state: MachineState,
    /// What came of the storage.
    pub storage: storage::Report,
    /// What is wrong otherwise, a sentence each.
    pub problems: Vec<String>,
    /// As `network` last told.
    pub links: Vec<Link>,
    /// Whether it has told, and there was no network card among them.
    #[serde(default)]
    no_card: bool,
    /// Whether this boot is in the list of boots, or on its way there.
    #[serde(default)]
    boot_recorded: bool,
    /// What is written into that list next.
    #[serde(default)]
    to_note: ToNote,
    /// Whether the state partition was full when that was last looked at.
    #[serde(default)]
    state_full: bool,
    /// Likewise.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// From DHCP.
    pub dhcp_hostname: Option<String>,
    /// A configuration that waits for its confirmation.
    unconfirmed: Option<Unconfirmed>,
    /// Whether the configuration in force could not be recorded.
    #[serde(default)]
    unrecorded: bool,
    /// What is recorded next.
    #[serde(default)]
    to_record: Option<ToRecord>,
    /// That what the next boot is to know of the containers could not be written.
    #[serde(default)]
    unkept: Option<Unkept>,
    /// The answers that wait until it is.
    #[serde(default)]
    held: Held,
    /// Who wants the next program; it is the one that answers.
    reexecution: Vec<Applicant>,
    shutdown: Option<Shutdown>,
    /// The timer that runs, if the machine has one.
    #[serde(default, deserialize_with = "crate::handover::if_there")]
    pub watchdog: Option<Watchdog>,
}

impl Machine {
    /// Blocks the signals that are read from a descriptor from now on.
    pub fn new() -> nix::Result<Self> {
        let mask: SigSet = SIGNALS.into_iter().collect();
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let reactor = Rc::new(Reactor::new()?);
        reactor.add(&signals, Token::Signals)?;
        let clock_settings = clock::Settings::watch()?;
        reactor.add(&clock_settings, Token::Clock)?;
        Ok(Self {
            supervisor: Supervisor::new(Rc::clone(&reactor)),
            reactor,
            signals,
            clock_settings,
            uevents: None,
            power_buttons: Vec::new(),
            pressure: None,
            tasks: Registry::default(),
            handover: None,
            rest: Rest::default(),
            program: None,
            folder: PathBuf::from(configuration::FOLDER),
            configuration_changed: true,
            timeline: Timeline::default(),
            command_line: CommandLine::default(),
            configuration: None,
            facts: Facts {
                state: MachineState::Booting,
                storage: storage::Report::default(),
                problems: Vec::new(),
                links: Vec::new(),
                no_card: false,
                boot_recorded: false,
                to_note: ToNote::default(),
                state_full: false,
                networks: Vec::new(),
                dhcp_hostname: None,
                unconfirmed: None,
                unrecorded: false,
                to_record: None,
                unkept: None,
                held: Held::default(),
                reexecution: Vec::new(),
                shutdown: None,
                watchdog: None,
            },
        })
    }

    /// Listens for devices that come and go.
    pub fn watch_devices(&mut self) -> nix::Result<()> {
        let uevents = Uevents::subscribe()?;
        self.reactor.add(&uevents, Token::Devices)?;
        self.uevents = Some(uevents);
        Ok(())
    }

    /// Listens for the power buttons; says how many there are.
    pub fn watch_power_buttons(&mut self) -> nix::Result<usize> {
        self.power_buttons = PowerButton::find();
        self.power_buttons.iter().try_for_each(|button| self.reactor.add(button, Token::PowerButton))?;
        Ok(self.power_buttons.len())
    }

    /// Listens for user containers that wait for memory.
    pub fn watch_pressure(&mut self) -> std::io::Result<()> {
        let pressure = Pressure::watch()?;
        self.reactor.add_urgent(&pressure, Token::Pressure)?;
        self.pressure = Some(pressure);
        Ok(())
    }

    /// The loop. Ends only where the kernel takes over: at the very end of a shutdown.
    pub fn run(&mut self) -> PowerAction {
        loop {
            self.supervisor.facts.configured |= self.supervisor.now >= CONFIGURATION_TIME;
            self.take_back();
            self.supervisor.settle();
            self.update_state();
            self.write_kept();
            self.tend_watchdog();
            if let Some(action) = self.advance_shutdown() {
                self.let_go_of_watchdog(action);
                return action;
            }
            self.write_down();
            if !self.facts.reexecution.is_empty() {
                let error = handover::leave(self.program.take());
                log::error!("PID 1 cannot execute itself anew: {error}");
                self.answer_reexecution(&Reply::Refused { reason: format!("execute PID 1 anew: {error}") });
                // The record is sealed.
                self.handover.iter_mut().for_each(Handover::spoil);
                self.write_down();
            }
            self.rest.begin(self.supervisor.now);
            let tokens = self.reactor.wait(self.patience());
            self.supervisor.begin_round();
            match tokens {
                Ok(tokens) => {
                    self.rest.stirred(&tokens, self.supervisor.now);
                    tokens.into_iter().for_each(|token| self.handle(token));
                }
                Err(error) => {
                    // epoll fails only for descriptors that are none: a defect, and no reason to spin.
                    log::error!("wait for events: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                    self.reap();
                }
            }
        }
    }

    /// How long the loop may sleep.
    fn patience(&self) -> Option<Duration> {
        let boot = (self.facts.state == MachineState::Booting).then_some(BOOT_TIME);
        let shutdown = self.facts.shutdown.as_ref().map(Shutdown::deadline);
        let configuration = (!self.supervisor.facts.configured).then_some(CONFIGURATION_TIME);
        let unconfirmed = self.facts.unconfirmed.as_ref().map(|waiting| waiting.deadline);
        let watchdog = self.facts.watchdog.as_ref().map(Watchdog::due);
        let (kept, answer, rest) = (self.kept_due(), self.answer_due(), self.rest.due());
        let all =
            [self.supervisor.deadline(), boot, configuration, shutdown, unconfirmed, watchdog, kept, answer, rest];
        let earliest = all.into_iter().flatten().min();
        earliest.map(|deadline| deadline.saturating_sub(clock::since_boot()))
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signals => self.handle_signals(),
            Token::Devices => self.handle_devices(),
            // What depends on it is looked at in every round.
            Token::Clock => {
                let armed = self.clock_settings.acknowledge();
                armed.unwrap_or_else(|error| log::error!("watch the wall clock: {error}"));
                self.clock_was_set();
            }
            Token::PowerButton => {
                // Every button is asked: each must be read, or it stays readable.
                let pressed = self.power_buttons.iter().filter(|button| button.was_pressed()).count();
                if pressed > 0 {
                    self.go_down(PowerAction::PowerOff, "the power button");
                }
            }
            Token::Pressure => self.supervisor.relieve(),
            Token::Task(number) => self.handle_task(number),
            Token::Setup(id) => self.supervisor.set_up(id),
            Token::Health(id) => self.supervisor.health_connection(id),
            Token::Session(id) => self.supervisor.session(id),
            Token::Readiness(id) => self.supervisor.readiness(id),
            Token::Execution(number) => self.supervisor.execution_reports(number),
            Token::Channel(id) => {
                for outcome in self.supervisor.message(id) {
                    self.carry_out(outcome);
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        while let Ok(Some(information)) = self.signals.read_signal() {
            let number = i32::try_from(information.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGINT) => self.go_down(PowerAction::Reboot, "Ctrl-Alt-Del"),
                Ok(Signal::SIGTERM) => self.go_down(PowerAction::Reboot, "SIGTERM to PID 1"),
                Ok(Signal::SIGPWR) => self.go_down(PowerAction::PowerOff, "SIGPWR to PID 1: the power fails"),
                Ok(Signal::SIGUSR2) => self.go_down(PowerAction::PowerOff, "SIGUSR2 to PID 1"),
                Ok(Signal::SIGUSR1) => self.go_down(PowerAction::Halt, "SIGUSR1 to PID 1"),
                Ok(signal) if self.command_line.faults => faults::come(signal),
                _ => {}
            }
        }
    }

    /// Collects every child that has ended, and hears of those that were stopped: containers, tasks, and the orphans that the kernel hands to PID 1.
    pub fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return,
                Ok(status) => {
                    self.supervisor.ended(status);
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return log::error!("collect ended processes: {error}"),
            }
        }
    }

    fn handle_devices(&mut self) {
        if self.uevents.as_ref().is_some_and(Uevents::block_devices_changed) {
            self.look_for_user_data();
        }
    }

    /// Looks for user data, unless there is some, or somebody is looking.
    pub fn look_for_user_data(&mut self) {
        let known =
            self.facts.storage.user_data.is_some() || self.configuration.is_none() || self.facts.shutdown.is_some();
        let looking = self.tasks.values().any(|work| matches!(work, Work::UserData(_) | Work::Configuration(_)));
        if !known && !looking {
            let started = self.start_task(|| Task::start(storage::look_for_user_data).map(Work::UserData));
            started.unwrap_or_else(|error| log::warn!("look for user data: {}", crate::chain(&error)));
        }
    }

    fn carry_out(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Machine(applicant) => {
                let machine = Box::new(self.describe());
                self.supervisor.reply_to(applicant, Reply::Machine(machine));
            }
            Outcome::Timeline(applicant) => {
                let steps = self.timeline.steps().to_vec();
                self.supervisor.reply_to(applicant, Reply::Timeline(steps));
            }
            Outcome::Configuration(applicant) => {
                let text = self.supervisor.configuration.to_toml().map_err(|error| error.to_string());
                self.supervisor.answer_with(applicant, text);
            }
            Outcome::Power { applicant, action } => self.power(applicant, action),
            Outcome::Boots(applicant) => self.read_boots(applicant),
            Outcome::Alive => self.api_answers(),
            Outcome::Reexecute { applicant, program: None } => self.facts.reexecution.push(applicant),
            Outcome::Reexecute { applicant, program: Some(program) } => self.look_at_program(applicant, program),
            Outcome::Plan { applicant, sheet } => self.look_at(applicant, sheet, Purpose::Plan),
            Outcome::Apply { applicant, sheet, confirm: None } => self.look_at(applicant, sheet, Purpose::Apply),
            Outcome::Apply { applicant, sheet, confirm: Some(time) } => {
                self.look_at(applicant, sheet, Purpose::Try(time));
            }
            Outcome::Why { applicant, name } => self.why(applicant, &name),
            Outcome::Confirm(applicant) => self.confirm(applicant),
            Outcome::Kept { applicant, descriptor } => self.answer_when_kept(applicant, descriptor),
            Outcome::Links(links) => self.take_links(links),
            Outcome::Networks(networks) => self.facts.networks = networks,
            Outcome::HostName(name) => {
                self.facts.dhcp_hostname = Some(name);
                if self.set_hostname() {
                    self.supervisor.machine_changed(self.facts.state);
                }
            }
        }
    }

    /// Tells those who wanted the next program what came of it.
    pub(crate) fn answer_reexecution(&mut self, reply: &Reply) {
        for applicant in std::mem::take(&mut self.facts.reexecution) {
            self.supervisor.reply_to(applicant, reply.clone());
        }
    }
}
