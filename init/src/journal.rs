//! What PID 1 says: to the kernel's log, and to every console that the kernel names.
//!
//! The kernel's log keeps everything with its time. The kernel itself prints only what is more urgent than its
//! console level (`loglevel=`), so what it would keep to itself is written to the consoles from here. The consoles are
//! non-blocking: a serial line with flow control and nobody behind it costs a line, not the boot.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc::{O_CLOEXEC, O_NOCTTY, O_NONBLOCK};

use crate::printable::printable;

/// syslog's facility `daemon`, for /dev/kmsg's `<facility*8+level>` prefix (kernel Documentation/ABI/testing/dev-kmsg).
const FACILITY_DAEMON: u8 = 3 << 3;

static JOURNAL: OnceLock<Journal> = OnceLock::new();

struct Journal {
    kernel_log: Option<File>,
    consoles: Vec<File>,
    console_level: u8,
}

/// Starts the journal; needs /dev, /proc and /sys. What cannot be opened is left out: there is nobody to tell yet.
pub fn start() {
    // By default the kernel takes ten lines in five seconds from a writer (admin-guide/sysctl/kernel.rst): less than a
    // boot has. The line break must be there. A kernel that does not know the setting keeps its limit.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let journal = JOURNAL.get_or_init(Journal::open);
    // It can only fail when a logger is set already, which is then this one.
    let _ = log::set_logger(journal);
    log::set_max_level(LevelFilter::Info);
}

impl Journal {
    fn open() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let open = |path: String| {
            let flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
            OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
        };
        let console_level = fs::read_to_string("/proc/sys/kernel/printk")
            .ok()
            .and_then(|levels| levels.split_whitespace().next()?.parse().ok())
            .unwrap_or(7);
        Self {
            kernel_log: open("/dev/kmsg".to_owned()),
            consoles: active.split_whitespace().filter_map(|name| open(format!("/dev/{name}"))).collect(),
            console_level,
        }
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let priority = priority(record.level());
        let seconds = crate::clock::since_boot();
        for line in record.args().to_string().lines() {
            let line = printable(line);
            if let Some(mut kernel_log) = self.kernel_log.as_ref() {
                // One write is one record. A log that does not take it drops it: nothing better can be done here.
                let _ = kernel_log.write_all(format!("<{}>berth: {line}\n", FACILITY_DAEMON | priority).as_bytes());
            }
            if priority < self.console_level {
                continue; // the kernel has just printed it
            }
            let text = format!("[{:>5}.{:06}] berth: {line}\r\n", seconds.as_secs(), seconds.subsec_micros());
            for mut console in &self.consoles {
                // A console that takes nothing now loses the line; see the head of this file.
                let _ = console.write_all(text.as_bytes());
            }
        }
    }

    fn flush(&self) {}
}

/// syslog's levels, of which the kernel knows eight.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
