//! The bars of the benches: a figure that misses its own is marked where it is printed, and fails the whole.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// Whether a figure has missed its bar.
static MISSED: AtomicBool = AtomicBool::new(false);

/// Prints a line about a figure, and judges that as it is, not as the line rounds it.
pub fn judged(line: &str, figure: f64, bar: Bar) {
    // What cannot be measured, such as a share of nothing, meets no bar.
    let (is_met, words) = match bar {
        Bar::AtMost(most) => (figure <= most, format!("at most {most}")),
        Bar::AtLeast(least) => (figure >= least, format!("at least {least}")),
    };
    MISSED.fetch_or(!is_met, Ordering::Relaxed);
    println!("{line}   bar: {words}{}", if is_met { "" } else { ", MISSED" });
}

/// What the bench ends with.
pub fn verdict() -> ExitCode {
    if MISSED.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
