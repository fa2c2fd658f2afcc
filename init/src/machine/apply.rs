//! `berth plan`, `berth apply`, `berth confirm`: another configuration while the machine runs.
//!
//! What came over the API is read, checked and compared in a task. Then PID 1 puts it in force, and another task records
//! it for the next boot; one that is to be confirmed is recorded when it is.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use berth_config::{Configuration, Instances, Locations, Plan, Source, Sysctls, Watchdog};
use berth_control::message::{MachineState, Reply};
use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::configuration::{self, KernelParameters, record};
use crate::supervisor::Applicant;
use crate::task::Task;
use crate::{chain, clock, files};

/// The longest sheet, in bytes: several files of the longest kind.
const MAXIMUM_SHEET: u64 = 8 << 20;

/// See [`Machine::tell_console`].
const CONSOLE: &str = "/run/berth/console.toml";

/// What is to be done with a configuration that is without mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Only to say what it would change.
    Plan,
    /// To be put in force and kept.
    Apply,
    /// To be put in force and, if nobody confirms it in this time, to be taken back.
    Try(Duration),
}

/// A configuration that is without mistakes, and where what decides about containers stands in its files.
pub type Wanted = (Configuration, Locations);

/// Why nothing is put in force while another configuration waits for its confirmation.
const UNCONFIRMED: &str =
    "the last configuration is not confirmed yet: `berth confirm` keeps it, or wait until it is taken back";

/// A configuration that is in force until somebody confirms it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// When it is taken back, on [`crate::clock`].
    pub deadline: Duration,
    /// What is in force again then.
    previous: Box<Configuration>,
    /// Where that one stood, for `berth why`.
    #[serde(default)]
    locations: Locations,
    /// The files that it came from.
    #[serde(default)]
    sources: Vec<String>,
    /// What the kernel's parameters are again then: those that `previous` does not name, too.
    #[serde(default)]
    kernel: KernelParameters,
}

impl Machine {
    /// Begins to look at the configuration on a sheet; the plan is going to be written on it.
    pub(super) fn look_at(&mut self, applicant: Applicant, sheet: OwnedFd, purpose: Purpose) {
        if purpose != Purpose::Plan && self.facts.unconfirmed.is_some() {
            return self.supervisor.refuse(applicant, UNCONFIRMED.to_owned());
        }
        let (old, made) = (self.supervisor.configuration.clone(), self.supervisor.running_made());
        self.start_task(|| {
            let task = Task::start(move || plan(File::from(sheet), &old, &made))?;
            Ok(Work::Plan { task, applicant, purpose })
        });
    }

    /// The task has looked.
    pub(super) fn looked_at(&mut self, applicant: Applicant, purpose: Purpose, outcome: Result<Box<Wanted>, String>) {
        let (wanted, locations) = match outcome {
            Ok(wanted) => *wanted,
            Err(reason) => return self.supervisor.refuse(applicant, reason),
        };
        // Another one may have come in force while the task looked.
        if purpose != Purpose::Plan && self.facts.unconfirmed.is_some() {
            return self.supervisor.refuse(applicant, UNCONFIRMED.to_owned());
        }
        if purpose == Purpose::Plan || wanted == self.supervisor.configuration {
            if purpose == Purpose::Apply && self.facts.unrecorded {
                return self.record(applicant);
            }
            return self.supervisor.reply_to(applicant, Reply::Done);
        }
        let mut unconfirmed = Unconfirmed {
            deadline: Duration::ZERO,
            previous: Box::new(self.supervisor.configuration.clone()),
            locations: self.supervisor.locations.clone(),
            sources: self.configuration.as_ref().map(|report| report.sources.clone()).unwrap_or_default(),
            kernel: KernelParameters::default(),
        };
        unconfirmed.kernel = match self.put_in_force(wanted, locations) {
            Ok(kernel) => kernel,
            Err(reason) => return self.supervisor.refuse(applicant, reason),
        };
        match purpose {
            Purpose::Try(time) => {
                unconfirmed.deadline = clock::since_boot() + time;
                self.facts.unconfirmed = Some(unconfirmed);
                self.supervisor.reply_to(applicant, Reply::Done);
            }
            _ => self.record(applicant),
        }
    }

    /// Keeps the configuration that is in force.
    pub(super) fn confirm(&mut self, applicant: Applicant) {
        match self.facts.unconfirmed.take() {
            Some(_) => self.record(applicant),
            None => self.supervisor.refuse(applicant, "there is nothing to confirm".to_owned()),
        }
    }

    fn record(&mut self, applicant: Applicant) {
        let configuration = self.supervisor.configuration.clone();
        self.start_task(|| {
            Ok(Work::Record { task: Task::start(move || record::write(&configuration).err())?, applicant })
        });
    }

    /// What is in force is recorded, or not.
    pub(super) fn recorded(&mut self, applicant: Applicant, problem: Option<String>) {
        self.facts.unrecorded = problem.is_some();
        match problem {
            None => self.supervisor.reply_to(applicant, Reply::Done),
            Some(reason) => {
                log::warn!("{reason}");
                self.supervisor.refuse(applicant, reason);
            }
        }
    }

    /// The configuration that nobody has confirmed is taken back when its time is up.
    pub(super) fn take_back(&mut self) {
        if self.facts.unconfirmed.as_ref().is_none_or(|waiting| waiting.deadline > clock::since_boot()) {
            return;
        }
        let Some(waiting) = self.facts.unconfirmed.take() else { return };
        log::warn!("nobody has confirmed the configuration: the one before is in force again");
        configuration::put_kernel_parameters_back(&waiting.kernel);
        match (self.put_in_force(*waiting.previous, waiting.locations), self.configuration.as_mut()) {
            // An older program noted none.
            (Ok(_), Some(report)) if !waiting.sources.is_empty() => report.sources = waiting.sources,
            (Ok(_), _) => {}
            (Err(reason), _) => {
                log::error!("{reason}");
                self.facts.problems.push(reason);
            }
        }
    }

    /// All of it or nothing; what the kernel's parameters were before.
    fn put_in_force(&mut self, wanted: Configuration, locations: Locations) -> Result<KernelParameters, String> {
        let sysctls = &self.supervisor.configuration.sysctls;
        let kernel = configuration::set_kernel_parameters(sysctls, &wanted.sysctls, Sysctls::path)?;
        if let Err(reason) = self.change_watchdog(&wanted.watchdog) {
            configuration::put_kernel_parameters_back(&kernel);
            return Err(reason);
        }
        self.supervisor.apply(wanted);
        self.supervisor.locations = locations.clone();
        self.configuration = Some(configuration::Report {
            sources: vec![record::SOURCE.to_owned()],
            locations,
            ..self.configuration.take().unwrap_or_default().without_problems()
        });
        self.configuration_changed = true;
        self.set_hostname();
        self.tell_console();
        if self.facts.state != MachineState::Booting {
            self.supervisor.machine_changed(self.facts.state);
        }
        Ok(kernel)
    }

    /// Goes over to other settings of the watchdog, or stays with those that are.
    fn change_watchdog(&mut self, wanted: &Watchdog) -> Result<(), String> {
        let before = self.supervisor.configuration.watchdog.clone();
        if before == *wanted {
            return Ok(());
        }
        let result = self.set_watchdog(wanted);
        if result.is_err()
            && let Err(second) = self.set_watchdog(&before)
        {
            log::error!("{second}");
        }
        result
    }

    /// Leaves what the configuration in force says of consoles where `console` reads it, which is there before the control
    /// API is. The rest of it has secrets.
    pub(crate) fn tell_console(&self) {
        let console = self.supervisor.configuration.console.clone();
        let configuration = Configuration { console, ..Configuration::default() };
        let text = configuration.to_toml().map_err(|error| chain(&error));
        let write = |text: String| files::replace(Path::new(CONSOLE), text.as_bytes()).map_err(|error| chain(&error));
        if let Err(reason) = text.and_then(write) {
            log::warn!("write {CONSOLE}: {reason}");
        }
    }
}

/// Reads the files of a sheet and writes the plan in their place. Runs in a task.
fn plan(mut sheet: File, old: &Configuration, made: &Instances) -> Result<Box<Wanted>, String> {
    let mut text = Vec::new();
    let failed = |error: std::io::Error| format!("read what is to be applied: {error}");
    (&sheet).take(MAXIMUM_SHEET).read_to_end(&mut text).map_err(failed)?;
    let files: Vec<(String, String)> =
        serde_json::from_slice(&text).map_err(|error| format!("read what is to be applied: {error}"))?;
    let sources: Vec<Source> = files.into_iter().map(|(name, text)| Source::new(name, text)).collect();
    let wanted = configuration::parse(sources).map_err(|mistakes| mistakes.join("\n"))?;
    let plan = Plan::between(old, &wanted.configuration, made).map_err(|error| chain(&error))?;
    let mut write = || {
        sheet.rewind()?;
        sheet.set_len(0)?;
        sheet.write_all(&serde_json::to_vec(&plan)?)
    };
    write().map_err(|error: std::io::Error| format!("write the plan: {error}"))?;
    Ok(Box::new((wanted.configuration, wanted.locations)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose configuration is in force; it has the host's name, which stays.
    fn machine() -> Machine {
        let mut machine = Machine::new().unwrap();
        machine.supervisor.configuration = configuration("");
        machine
    }

    fn configuration(text: &str) -> Configuration {
        wanted("test", text).0
    }

    fn wanted(name: &str, text: &str) -> Wanted {
        let hostname = nix::unistd::gethostname().unwrap();
        let text = format!("hostname = {hostname:?}\n{text}");
        let loaded = berth_config::load(&[Source::new(name, text)]).unwrap();
        (loaded.configuration, loaded.locations)
    }

    #[test]
    fn another_watchdog_is_in_force_at_once() {
        let mut machine = machine();
        let (mut device, theirs) = std::io::pipe().unwrap();
        machine.facts.watchdog = Some(crate::watchdog::tests::running(OwnedFd::from(theirs).into()));
        // This device is no timer, so it takes no other time.
        let refused =
            machine.put_in_force(configuration("watchdog = { timeout = '30s' }"), Locations::default()).unwrap_err();
        assert!(refused.contains("set a time-out of 30 s"), "{refused}");
        assert_eq!(machine.supervisor.configuration, configuration(""), "all of it or nothing");
        machine.put_in_force(configuration("watchdog = { device = 'off' }"), Locations::default()).unwrap();
        assert!(machine.facts.watchdog.is_none());
        let mut letters = String::new();
        device.read_to_string(&mut letters).unwrap();
        assert_eq!(letters, "V", "the timer is stopped");
    }

    #[test]
    fn what_nobody_confirms_leaves_the_kernel_as_it_was() {
        let mut machine = machine();
        let parameter = tempfile::NamedTempFile::new().unwrap();
        let kernel = vec![(parameter.path().to_owned(), "60\n".to_owned())];
        let previous = Box::new(configuration(""));
        let (locations, sources) = (Locations::default(), Vec::new());
        machine.facts.unconfirmed =
            Some(Unconfirmed { deadline: Duration::ZERO, previous, locations, sources, kernel });
        machine.take_back();
        assert!(machine.facts.unconfirmed.is_none());
        assert_eq!(std::fs::read_to_string(parameter.path()).unwrap(), "60\n");
    }

    #[test]
    fn what_is_in_force_again_stands_where_it_stood() {
        let mut machine = machine();
        let (configuration, locations) = wanted("berth.toml", "[containers.web]\nimage = 'a'\n");
        let report = configuration::Report { sources: vec!["berth.toml".into()], ..configuration::Report::default() };
        (machine.supervisor.configuration, machine.supervisor.locations) = (configuration, locations);
        machine.configuration = Some(report);
        let applicant = machine.supervisor.applicant(0, 1);
        let other = wanted("other.toml", "\n[containers.web]\nimage = 'b'\n");
        machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), Ok(Box::new(other)));
        let stands = |machine: &Machine| {
            (machine.supervisor.locations.find("web", "image").unwrap(), machine.describe().configuration_sources)
        };
        assert_eq!(stands(&machine), ("other.toml:4".to_owned(), vec!["berth apply".to_owned()]));
        machine.facts.unconfirmed.as_mut().unwrap().deadline = Duration::ZERO;
        machine.take_back();
        assert_eq!(stands(&machine), ("berth.toml:3".to_owned(), vec!["berth.toml".to_owned()]));
        assert_eq!(machine.configuration.unwrap().locations, machine.supervisor.locations, "and for the next program");
    }

    #[test]
    fn a_sheet_with_files_comes_back_with_the_plan() {
        let mut sheet = tempfile::tempfile().unwrap();
        let files = [("a.toml", "[containers.web]\nimage = \"web\"\n"), ("b.toml", "hostname = \"b\"\n")];
        sheet.write_all(&serde_json::to_vec(&files).unwrap()).unwrap();
        sheet.rewind().unwrap();
        let wanted = plan(sheet.try_clone().unwrap(), &Configuration::default(), &Instances::new()).unwrap();
        assert_eq!(wanted.0.containers.len(), 1);
        assert_eq!(wanted.1.find("web", "image").unwrap(), "a.toml:2");
        sheet.rewind().unwrap();
        let plan: Plan = serde_json::from_reader(sheet).unwrap();
        assert_eq!((plan.containers[0].name.as_str(), plan.settings[0].key.as_str()), ("web", "hostname"));
    }

    #[test]
    fn mistakes_are_told_with_their_file_and_line() {
        let mut sheet = tempfile::tempfile().unwrap();
        sheet.write_all(br#"[["web.toml", "\n[containers.web]\nimag = \"web\"\n"]]"#).unwrap();
        sheet.rewind().unwrap();
        let reason = plan(sheet, &Configuration::default(), &Instances::new()).unwrap_err();
        assert!(reason.contains("web.toml:3:1"), "{reason}");
    }
}
