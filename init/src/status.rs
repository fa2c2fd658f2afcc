//! What PID 1 tells of the machine: its name, its problems, its state in one piece.

use std::fs;

use berth_config::Sysctls;
use berth_control::message::{Machine as Description, MachineState};
use nix::sys::utsname::uname;

use crate::clock;
use crate::configuration::{Report, set_kernel_parameter};
use crate::machine::Machine;
use crate::watchdog::Watchdog;

/// How many bytes of problems are told of at most, so that they fit a message with all else: some hundred of them.
const PROBLEMS_AT_MOST: usize = 48 * 1024;

/// The name of a machine that has none.
const DEFAULT_HOSTNAME: &str = "berth";

impl Machine {
    /// What is wrong, a sentence each.
    pub fn all_problems(&self) -> Vec<String> {
        let mut problems = self.facts.problems.clone();
        problems.extend(clock::problem());
        problems.extend(self.command_line.complaints.iter().cloned());
        problems.extend(self.facts.storage.problems.iter().cloned());
        problems.extend(self.configuration.iter().flat_map(|report| report.problems.iter().cloned()));
        problems.extend(self.lacks());
        problems.extend(self.supervisor.lost_made());
        problems.extend(self.supervisor.problems());
        problems
    }

    /// Everything that a client may want to know.
    pub fn describe(&self) -> Description {
        let kernel = uname().ok().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
        Description {
            hostname: hostname(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel,
            slot: self.command_line.slot.clone(),
            state: self.facts.state,
            uptime_ms: u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX),
            problems: the_first(self.all_problems()),
            links: self.facts.links.clone(),
            networks: self.facts.networks.clone(),
            watchdog: self.facts.watchdog.as_ref().map(Watchdog::describe).unwrap_or_default(),
            state_storage: self.facts.storage.state.clone(),
            configuration_sources: self
                .configuration
                .iter()
                .flat_map(|report| report.sources.iter().cloned())
                .collect(),
        }
    }

    /// Gives the machine its name: the configuration's, else DHCP's, else `berth`. Whether it is another one.
    pub fn set_hostname(&self) -> bool {
        let configured = self.supervisor.configuration.hostname.as_ref().map(ToString::to_string);
        let name =
            configured.or_else(|| self.facts.dhcp_hostname.clone()).unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
        if name == hostname() {
            return false;
        }
        if let Err(error) = nix::unistd::sethostname(&name) {
            log::warn!("set the host name {name}: {error}");
            return false;
        }
        for (file, text) in [("hostname", format!("{name}\n")), ("hosts", hosts(&name))] {
            if let Err(error) = fs::write(format!("/run/berth/{file}"), text) {
                log::warn!("write /run/berth/{file}: {error}");
            }
        }
        true
    }

    /// Takes over a configuration that has been read, or notes why there is none.
    pub fn configure(&mut self, mut report: Report) {
        let start_us = report.start_us;
        let outcome = if report.problems.is_empty() { Ok(report.outcome.clone()) } else { Err(report.outcome.clone()) };
        self.timeline.record("read configuration", start_us, outcome);
        for line in report.problems.iter().flat_map(|problem| problem.lines()) {
            log::warn!("{line}");
        }
        self.read_during_trial(&mut report);
        if report.configuration.is_none() {
            report.not_kept = self.configuration.as_mut().and_then(|before| before.not_kept.take());
        }
        // Later ones bring what was read before the last change.
        let first = self.configuration.is_none();
        let (made, unread) = (std::mem::take(&mut report.made), std::mem::take(&mut report.made_unread));
        let restores = report.kept_is_read && !self.supervisor.facts.made_known;
        if restores {
            self.supervisor.facts.stopped = std::mem::take(&mut report.stopped);
        }
        // Neither the last good one in the place of another, nor none at all.
        let is_what_is_declared = report.configuration.is_some() && report.problems.is_empty();
        if let Some(configuration) = report.configuration.take() {
            self.supervisor.apply(configuration);
            self.supervisor.locations = report.locations.clone();
        }
        if restores {
            self.supervisor.facts.made_unread = unread;
            if self.command_line.no_configuration {
                self.supervisor.restore_made_at_rest(made);
            } else {
                self.supervisor.restore_made(made);
            }
        }
        if first && self.is_late() {
            // Its containers have not been tried, and the machine is not ready before they have.
            self.supervisor.give_up_boot();
        }
        if is_what_is_declared {
            self.supervisor.forget_stopped();
        }
        let sysctls = &self.supervisor.configuration.sysctls;
        let set = |(name, value)| set_kernel_parameter(&Sysctls::path(name), name, value);
        report.problems.extend(sysctls.iter().filter_map(|setting| set(setting).err()));
        let watchdog = self.supervisor.configuration.watchdog.clone();
        report.problems.extend(self.set_watchdog(&watchdog).err());
        self.configuration = Some(report);
        self.configuration_changed = true;
        self.supervisor.facts.configured = true;
        self.set_hostname();
        self.tell_console();
        if self.facts.state != MachineState::Booting {
            self.supervisor.machine_changed(self.facts.state);
        }
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback {name}\n")
}

/// The first of them that may be told at once, and how many more there are.
fn the_first(mut problems: Vec<String>) -> Vec<String> {
    let mut length = 0;
    let told = problems.iter().take_while(|problem| {
        length += problem.len();
        length <= PROBLEMS_AT_MOST
    });
    let told = told.count();
    let more = problems.len().saturating_sub(told);
    if more > 0 {
        problems.truncate(told);
        problems.push(format!("and {more} more; `berth ps --all` shows all containers"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_problems_fit_a_message() {
        let problem = |number| format!("container a-{number}: {}", "no archive has this image; ".repeat(10));
        let all: Vec<String> = (0..1000).map(problem).collect();
        let told = the_first(all.clone());
        assert!(told.iter().map(String::len).sum::<usize>() < PROBLEMS_AT_MOST + 100);
        let (last, first) = told.split_last().unwrap();
        assert!(first.len() > 100 && all.starts_with(first));
        assert_eq!(*last, format!("and {} more; `berth ps --all` shows all containers", 1000 - first.len()));
        assert_eq!(the_first(all[..3].to_vec()), all[..3]);
        assert_eq!(the_first(vec!["x".repeat(PROBLEMS_AT_MOST + 1)]).len(), 1);
    }

    #[test]
    fn a_configuration_that_is_the_declared_one_forgets_who_was_stopped_and_is_gone() {
        // The name that the host has stays.
        let hostname = hostname();
        let text = format!(
            "hostname = {hostname:?}\nwatchdog = {{ device = 'off' }}\n\
             [containers.web]\nimage = 'a'\nrestart = 'unless-stopped'\n"
        );
        let read = |problems: &[&str]| {
            let mut machine = Machine::new().unwrap();
            machine.configure(Report {
                configuration: Some(crate::supervisor::world::configuration(&text)),
                problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
                stopped: ["db", "web"].map(str::to_owned).into(),
                kept_is_read: true,
                ..Report::default()
            });
            machine.supervisor.facts.stopped.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(read(&[]), ["web"]);
        assert_eq!(read(&["the configuration in force is the last good one"]), ["db", "web"]);
    }
}
