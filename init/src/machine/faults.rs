//! The defects of PID 1 that `berth.faults` lets a signal ask for, so that tests see what follows from a real one.
//!
//! | signal | defect |
//! |---|---|
//! | SIGHUP | a panic |
//! | SIGQUIT | a read through a null pointer: SIGSEGV of the processor's own making |
//! | SIGXCPU | a function that calls itself without end: SIGSEGV below the stack, where nothing can be called any more |

use nix::sys::signal::Signal;

use crate::sys;

/// Has the defect of this signal; nothing happens if it has none.
#[allow(clippy::panic)] // it is what it is for
pub(super) fn come(signal: Signal) {
    match signal {
        Signal::SIGHUP => panic!("SIGHUP came, and berth.faults is on the kernel command line"),
        Signal::SIGQUIT => {
            log::warn!("SIGQUIT came, and berth.faults is on: reading through a null pointer");
            sys::crash::read_null();
        }
        Signal::SIGXCPU => {
            log::warn!("SIGXCPU came, and berth.faults is on: calling a function without end");
            sys::crash::descend(0);
        }
        _ => {}
    }
}
