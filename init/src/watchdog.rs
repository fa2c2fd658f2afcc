//! The watchdog: a timer that resets the machine unless PID 1 winds it up, which it does while its own loop goes round
//! and the control API answers.
//!
//! ```text
//!  every third of the time-out: ask `control` ──▶ it has answered the last question, or is a new one: wind up
//!                                              └─▶ it has not: kill it, and wind up all the same …
//!                                                  … until that has gone on for four time-outs
//! ```
//! A machine without such a timer, or with `watchdog.device = "off"`, is never woken for it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use berth_config::{Watchdog as Settings, WatchdogDevice};
use nix::libc::O_CLOEXEC;
use serde::{Deserialize, Serialize};

use crate::sys::watchdog as sys;

/// What the kernel's own timer calls itself (drivers/watchdog/softdog.c).
const SOFTWARE: &str = "Software Watchdog";

/// So many devices are looked at; the kernel has room for 32 (MAX_DOGS in drivers/watchdog).
const MOST: u32 = 32;

/// So many time-outs long the API may be silent before the machine is given up.
const PATIENCE: u32 = 4;

/// A timer that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watchdog {
    #[serde(with = "berth_runtime::handover")]
    device: File,
    /// What the driver calls itself.
    pub identity: String,
    /// After how long without us it resets the machine.
    pub timeout: Duration,
    /// Whether it has reset the machine last time.
    pub has_reset: bool,
    /// When it is to be wound up next, on [`crate::clock`].
    due: Duration,
    /// Since when the API has been silent; absent while it is not.
    silent_since: Option<Duration>,
    /// Whether the last question has no answer yet.
    asked: bool,
    /// Whether it is not wound up any more.
    #[serde(default)]
    given_up: bool,
}

impl AsFd for Watchdog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// What is to be done about the API when the timer's time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Ask it whether it is there.
    Ask,
    /// It has not answered: start it again, and ask then.
    Restart,
    /// Nothing has helped: the machine is going to be reset.
    GiveUp,
}

impl Watchdog {
    /// Finds the timer that is wanted and starts it; `None` if the machine has none, or none is wanted.
    pub fn start(settings: &Settings) -> Result<Option<Self>, String> {
        let software = match settings.device {
            WatchdogDevice::Off => return Ok(None),
            WatchdogDevice::Hardware => false,
            WatchdogDevice::Software => true,
        };
        for number in 0..MOST {
            let path = format!("/dev/watchdog{number}");
            // To open it is to start it.
            let device = match OpenOptions::new().write(true).custom_flags(O_CLOEXEC).open(&path) {
                Ok(device) => device,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("{path}: {error}")),
            };
            let identity = sys::identity(&device).map_err(|error| format!("{path}: {error}"))?;
            if (identity == SOFTWARE) == software {
                let has_reset = sys::has_reset(&device);
                let timeout = settings.timeout.duration();
                let (silent_since, asked, given_up, due) = (None, false, false, Duration::ZERO);
                let mut found = Self { device, identity, timeout, has_reset, due, silent_since, asked, given_up };
                found.set_timeout(timeout)?;
                return Ok(Some(found));
            }
            stop(device).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(None)
    }

    /// Changes the time-out; what the driver has made of it is in [`Self::timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), String> {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let set = sys::set_timeout(&self.device, seconds);
        let set = set.map_err(|error| format!("{}: set a time-out of {seconds} s: {error}", self.identity))?;
        self.timeout = Duration::from_secs(set.into());
        // The next time may have been for a longer one.
        self.due = Duration::ZERO;
        Ok(())
    }

    /// Whether it is what these settings want, apart from the time.
    pub fn suits(&self, settings: &Settings) -> bool {
        match settings.device {
            WatchdogDevice::Off => false,
            WatchdogDevice::Hardware => self.identity != SOFTWARE,
            WatchdogDevice::Software => self.identity == SOFTWARE,
        }
    }

    /// When [`Self::tend`] is to be called at the latest, on [`crate::clock`].
    pub fn due(&self) -> Duration {
        self.due
    }

    /// The API has answered. Whether the machine had been given up, which it is not any more.
    pub fn answered(&mut self) -> bool {
        self.asked = false;
        if self.silent_since.take().is_some() {
            log::info!("the control API answers again");
        }
        std::mem::take(&mut self.given_up)
    }

    /// Winds the timer up if it is time. With `api` the control API is looked after, too; what is to be done about it
    /// is the result.
    pub fn tend(&mut self, now: Duration, api: bool) -> Option<Care> {
        self.tend_with(now, api, |device| sys::keep_alive(device))
    }

    /// The same with another way of winding up, for tests.
    fn tend_with(&mut self, now: Duration, api: bool, wind_up: impl FnOnce(&File) -> nix::Result<()>) -> Option<Care> {
        if now < self.due {
            return None;
        }
        self.due = now + self.timeout / 3;
        let care = if api { self.look_after_api(now) } else { None };
        if care != Some(Care::GiveUp)
            && let Err(error) = wind_up(&self.device)
        {
            log::error!("wind up the watchdog {}: {error}", self.identity);
        }
        care
    }

    fn look_after_api(&mut self, now: Duration) -> Option<Care> {
        if !std::mem::replace(&mut self.asked, true) {
            return Some(Care::Ask);
        }
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.timeout * PATIENCE {
            self.given_up = true;
            return Some(Care::GiveUp);
        }
        // Whoever comes after it has not been asked yet.
        self.asked = false;
        Some(Care::Restart)
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        format!("{}, {} s", self.identity, self.timeout.as_secs())
    }

    /// Stops the timer; without that it runs on when its device is closed.
    pub fn stop(self) -> Result<(), String> {
        let identity = self.identity;
        stop(self.device).map_err(|error| format!("stop the watchdog {identity}: {error}"))
    }
}

/// The letter that says that the device is closed on purpose.
fn stop(mut device: File) -> std::io::Result<()> {
    device.write_all(b"V")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A timer of 60 s whose device swallows everything.
    fn watchdog() -> Watchdog {
        running(OpenOptions::new().write(true).open("/dev/null").unwrap())
    }

    /// A timer of 60 s with this device.
    pub fn running(device: File) -> Watchdog {
        let timeout = Duration::from_secs(60);
        let (has_reset, silent_since, asked, given_up, due) = (false, None, false, false, Duration::ZERO);
        Watchdog { device, identity: "test".into(), timeout, has_reset, due, silent_since, asked, given_up }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_api_that_answers_is_asked_three_times_in_each_timeout() {
        let mut watchdog = watchdog();
        for seconds in [0, 20, 40, 60] {
            assert_eq!(watchdog.tend(at(seconds), true), Some(Care::Ask));
            assert_eq!(watchdog.tend(at(seconds + 19), true), None);
            assert!(!watchdog.answered());
        }
    }

    #[test]
    fn a_silent_api_is_started_again_and_at_last_the_machine() {
        let mut watchdog = watchdog();
        assert_eq!(watchdog.tend(at(0), true), Some(Care::Ask));
        for seconds in (20..260).step_by(40) {
            assert_eq!(watchdog.tend(at(seconds), true), Some(Care::Restart), "{seconds}");
            assert_eq!(watchdog.tend(at(seconds + 20), true), Some(Care::Ask), "{seconds}");
        }
        assert_eq!(watchdog.tend(at(260), true), Some(Care::GiveUp));
        assert_eq!(watchdog.tend(at(280), true), Some(Care::GiveUp));
        assert!(watchdog.answered(), "it had been given up");
        assert_eq!(watchdog.tend(at(300), true), Some(Care::Ask));
        assert!(!watchdog.answered());
    }

    #[test]
    fn a_machine_whose_api_stays_silent_is_not_wound_up_any_more() {
        let mut watchdog = watchdog();
        let mut wound_up = Vec::new();
        let mut tend = |watchdog: &mut Watchdog, seconds: u64| {
            watchdog.tend_with(at(seconds), true, |_| {
                wound_up.push(seconds);
                Ok(())
            })
        };
        for seconds in (0..=320).step_by(10) {
            tend(&mut watchdog, seconds);
        }
        // Had it come back in the last moment, it would be.
        watchdog.answered();
        tend(&mut watchdog, 340);
        let until_given_up = (0..260).step_by(20);
        assert_eq!(wound_up, until_given_up.chain([340]).collect::<Vec<u64>>());
    }

    #[test]
    fn nobody_asks_before_the_boot_is_over() {
        let mut watchdog = watchdog();
        assert_eq!(watchdog.tend(at(0), false), None);
        assert_eq!(watchdog.due(), at(20));
    }
}
