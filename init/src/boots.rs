//! The list of boots: when each began, how and why it ended. Kept on the state partition, written by tasks.
//!
//! A boot that ends in order writes its end itself, and one that the watchdog is about to reset why. One that does neither is
//! found without a reason by the next, which writes what it knows.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use berth_control::message::Boot;
use nix::sys::utsname::uname;

use crate::{clock, files};

/// Where the list is.
pub const PATH: &str = "/var/lib/berth/boots.json";

/// Its name there, beside [`crate::configuration::FOLDER`].
pub const NAME: &str = "boots.json";

/// So many are kept: a year of a machine that is updated each week, or a night of one that resets itself.
const KEPT: usize = 64;

/// What the next boot says of one that has not ended in order.
const CUT: &str = "it was cut off: loss of power, a reset, or a crash of the kernel";

/// The same, if a watchdog says that it was it.
const RESET: &str = "the watchdog has reset it: PID 1 or the control API did not answer";

/// What a boot says of itself when it is about to be ended so; not every timer tells the next boot that it was it.
pub const GIVEN_UP: &str = "the watchdog has reset it: the control API did not answer, however often it was started";

/// This boot, which has not ended.
fn this_boot(slot: &str) -> Boot {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let kernel = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    let began = clock::wall().saturating_sub(clock::since_boot()).as_secs();
    let (version, slot) = (env!("CARGO_PKG_VERSION").to_owned(), slot.to_owned());
    Boot { id, version, kernel, slot, began, ended: None, reason: String::new() }
}

/// The list, the oldest first. There is none on a machine that boots for the first time.
pub fn read(path: &Path) -> Result<Vec<Boot>, String> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| format!("read {}: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

/// Adds this boot, or when it began if it is there and somebody has set the clock; and to the one before what is known of its end. A list that cannot be read is begun anew.
pub fn begin(path: &Path, slot: &str, watchdog_has_reset: bool) -> Result<(), String> {
    let mut boots = read(path).unwrap_or_default();
    add(&mut boots, this_boot(slot), watchdog_has_reset);
    write(path, &boots)
}

/// Writes that this boot ends now, and why.
pub fn end(path: &Path, slot: &str, reason: &str) -> Result<(), String> {
    let mut boots = read(path).unwrap_or_default();
    finish(&mut boots, this_boot(slot), reason);
    write(path, &boots)
}

/// Writes what this boot is going to end by without a chance to write it then. An empty reason: by nothing that is known.
pub fn foresee(path: &Path, slot: &str, reason: &str) -> Result<(), String> {
    let mut boots = read(path).unwrap_or_default();
    explain(&mut boots, this_boot(slot), reason);
    write(path, &boots)
}

fn add(boots: &mut Vec<Boot>, boot: Boot, watchdog_has_reset: bool) {
    // After a short boot this one may be there already, with its end. The clock may have been set since.
    if let Some(this) = boots.last_mut().filter(|last| last.id == boot.id) {
        this.began = boot.began;
        return;
    }
    if let Some(last) = boots.last_mut().filter(|last| last.reason.is_empty()) {
        last.reason = if watchdog_has_reset { RESET } else { CUT }.to_owned();
    }
    boots.push(boot);
    boots.drain(..boots.len().saturating_sub(KEPT));
}

fn finish(boots: &mut Vec<Boot>, boot: Boot, reason: &str) {
    if let Some(this) = explain(boots, boot, reason) {
        this.ended = Some(clock::wall().as_secs());
    }
}

/// This boot, with this reason for its end.
fn explain<'a>(boots: &'a mut Vec<Boot>, boot: Boot, reason: &str) -> Option<&'a mut Boot> {
    let id = boot.id.clone();
    add(boots, boot, false);
    let this = boots.last_mut().filter(|last| last.id == id)?;
    reason.clone_into(&mut this.reason);
    Some(this)
}

fn write(path: &Path, boots: &[Boot]) -> Result<(), String> {
    let json = serde_json::to_vec(boots).map_err(|error| error.to_string())?;
    files::replace(path, &json).map_err(|error| format!("keep the list of boots in {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(number: u64) -> Boot {
        Boot { id: number.to_string(), began: number, ..this_boot("a") }
    }

    #[test]
    fn an_end_in_order_is_written_and_another_is_guessed_by_the_next_boot() {
        let mut boots = Vec::new();
        add(&mut boots, boot(1), false);
        assert_eq!(boots[0].reason, "");
        finish(&mut boots, boot(1), "berth reboot");
        add(&mut boots, boot(2), false);
        add(&mut boots, boot(3), true);
        add(&mut boots, boot(4), false);
        let reasons: Vec<&str> = boots.iter().map(|boot| boot.reason.as_str()).collect();
        assert_eq!(reasons, ["berth reboot", RESET, CUT, ""]);
        assert!(boots[0].ended.is_some() && boots[1].ended.is_none());
    }

    #[test]
    fn a_boot_that_ends_before_its_beginning_is_written_is_there_once() {
        let mut boots = Vec::new();
        finish(&mut boots, boot(1), "the power button");
        add(&mut boots, boot(1), false);
        assert_eq!(boots.len(), 1);
        assert_eq!(boots[0].reason, "the power button");
    }

    #[test]
    fn a_boot_began_when_the_clock_that_was_set_later_says() {
        let mut boots = Vec::new();
        add(&mut boots, boot(1), false);
        let with_clock = || Boot { began: 1_795_000_000, ..boot(1) };
        add(&mut boots, with_clock(), true);
        assert_eq!((boots.len(), boots[0].began, boots[0].reason.as_str()), (1, 1_795_000_000, ""));
        finish(&mut boots, with_clock(), "berth reboot");
        add(&mut boots, boot(2), false);
        assert_eq!((boots[0].began, boots[0].reason.as_str()), (1_795_000_000, "berth reboot"));
    }

    #[test]
    fn the_oldest_are_forgotten_and_a_broken_list_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boots.json");
        fs::write(&path, "[{").unwrap();
        assert!(read(&path).unwrap_err().contains("boots.json"));
        begin(&path, "a", false).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        let mut boots = Vec::new();
        (0..100).for_each(|number| add(&mut boots, boot(number), false));
        assert_eq!((boots.len(), boots[0].began), (KEPT, 36));
    }

    #[test]
    fn what_a_boot_has_foreseen_is_what_it_ended_by_unless_it_ends_otherwise() {
        let after = |foreseen: &[&str], end: Option<&str>, reset: bool| {
            let mut boots = Vec::new();
            add(&mut boots, boot(1), false);
            assert!(foreseen.iter().all(|reason| explain(&mut boots, boot(1), reason).is_some()));
            assert!(boots[0].ended.is_none());
            end.into_iter().for_each(|reason| finish(&mut boots, boot(1), reason));
            add(&mut boots, boot(2), reset);
            boots.swap_remove(0).reason
        };
        for reset in [false, true] {
            assert_eq!(after(&[GIVEN_UP], None, reset), GIVEN_UP);
        }
        assert_eq!(after(&[GIVEN_UP, ""], None, false), CUT, "the API has come back");
        assert_eq!(after(&[GIVEN_UP], Some("berth reboot"), false), "berth reboot");
    }

    #[test]
    fn what_is_foreseen_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boots.json");
        begin(&path, "a", false).unwrap();
        for reason in [GIVEN_UP, ""] {
            foresee(&path, "a", reason).unwrap();
            let boots = read(&path).unwrap();
            assert_eq!((boots.len(), boots[0].reason.as_str()), (1, reason));
        }
    }
}
