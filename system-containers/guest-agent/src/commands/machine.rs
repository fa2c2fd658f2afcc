//! The machine as a whole: its names, its clock, its end.

use std::path::Path;
use std::process::Command;

use rustix::time::{ClockId, Timespec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Arguments, CommandError, Host, Nothing, read};
use crate::processes::Capture;
use crate::protocol::Answer;

const NANOSECONDS: i64 = 1_000_000_000;

pub fn host_name(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-get-host-name", arguments)?;
    let uname = rustix::system::uname();
    Ok(Answer::Return(json!({ "host-name": uname.nodename().to_string_lossy() })))
}

pub fn os_info(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-get-osinfo", arguments)?;
    let uname = rustix::system::uname();
    let mut info = Map::new();
    let mut add = |key: &str, value: &str| info.insert(key.to_owned(), Value::from(value));
    add("kernel-release", &uname.release().to_string_lossy());
    add("kernel-version", &uname.version().to_string_lossy());
    add("machine", &uname.machine().to_string_lossy());
    // An image without this file is still a kernel that can be told about.
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    for (key, value) in os_release(&release) {
        add(key, &value);
    }
    Ok(Answer::Return(Value::Object(info)))
}

/// The members of QEMU's GuestOSInfo that os-release(5) has, with their values.
fn os_release(text: &str) -> Vec<(&'static str, String)> {
    const MEMBERS: [(&str, &str); 7] = [
        ("ID", "id"),
        ("NAME", "name"),
        ("PRETTY_NAME", "pretty-name"),
        ("VERSION", "version"),
        ("VERSION_ID", "version-id"),
        ("VARIANT", "variant"),
        ("VARIANT_ID", "variant-id"),
    ];
    let assignments = text.lines().filter_map(|line| line.trim().split_once('='));
    assignments
        .filter_map(|(key, value)| {
            let (_, member) = MEMBERS.iter().find(|(name, _)| *name == key)?;
            Some((*member, unquote(value)))
        })
        .collect()
}

/// A value of os-release(5) without its shell quotes.
fn unquote(value: &str) -> String {
    let quoted = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    match quoted('"') {
        Some(inner) => {
            let mut escaped = false;
            let keep = |letter: &char| {
                escaped = *letter == '\\' && !escaped;
                !escaped
            };
            inner.chars().filter(keep).collect()
        }
        None => quoted('\'').unwrap_or(value).to_owned(),
    }
}

pub fn time(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-get-time", arguments)?;
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    Ok(Answer::Return(now.tv_sec.saturating_mul(NANOSECONDS).saturating_add(now.tv_nsec).into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetTime {
    /// Nanoseconds since 1970, UTC; without it the hardware clock is asked.
    time: Option<i64>,
}

pub fn set_time(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: SetTime = read("guest-set-time", arguments)?;
    let time = match wanted.time {
        Some(time) => time,
        None => hardware_clock(Path::new("/sys/class/rtc/rtc0/since_epoch"))?,
    };
    if time < 0 {
        return Err(CommandError::Range { member: "time", value: time });
    }
    let time = Timespec { tv_sec: time / NANOSECONDS, tv_nsec: time % NANOSECONDS };
    rustix::time::clock_settime(ClockId::Realtime, time)
        .map_err(|error| CommandError::System { operation: "set the clock", source: error.into() })?;
    Ok(Answer::empty())
}

/// The hardware clock in nanoseconds since 1970.
fn hardware_clock(attribute: &Path) -> Result<i64, CommandError> {
    let failed = |source| CommandError::System { operation: "read the hardware clock", source };
    let text = std::fs::read_to_string(attribute).map_err(failed)?;
    let seconds: i64 = text.trim().parse().map_err(|error| failed(std::io::Error::other(error)))?;
    Ok(seconds.saturating_mul(NANOSECONDS))
}

/// The offset of local time in seconds. Berth's clock is UTC; containers have their own zones.
pub fn time_zone(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-get-timezone", arguments)?;
    Ok(Answer::Return(json!({ "zone": "UTC", "offset": 0 })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shutdown {
    #[serde(default)]
    mode: ShutdownMode,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShutdownMode {
    #[default]
    Powerdown,
    Halt,
    Reboot,
}

/// Asks PID 1 through the command line, the way an operator would; the order of the shutdown is PID 1's business.
pub fn shutdown(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: Shutdown = read("guest-shutdown", arguments)?;
    let mut command = Command::new(&host.power_command);
    command.arg(match wanted.mode {
        ShutdownMode::Powerdown => "poweroff",
        ShutdownMode::Halt => "halt",
        ShutdownMode::Reboot => "reboot",
    });
    host.processes.start(command, Vec::new(), Capture::Nothing)?;
    Ok(Answer::Silence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_its_quotes() {
        let text = "ID=berth\nPRETTY_NAME=\"Berth \\\"dock\\\"\"\nVERSION='1 2'\n# NAME=no\nHOME_URL=x\n";
        let expected = [("id", "berth"), ("pretty-name", "Berth \"dock\""), ("version", "1 2")];
        let found = os_release(text);
        assert_eq!(found.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>(), expected);
    }
}
