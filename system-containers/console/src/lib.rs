//! The shells on the consoles, and the `berth` command line.
//!
//! The system container `console` gives every console that the kernel writes to a banner with the machine's state and a
//! login shell, for as long as the configuration allows shells. It needs nothing but the kernel for the shell: a
//! machine whose control API is broken still has one.
//!
//! - [`cli`]: the command line
//! - `consoles`: which consoles there are, and writing to one without waiting for it
//! - `shells`: keeps a shell on each; `session`: becomes one
//! - `banner`: what is written before the shell, and again when the machine's state changes

mod banner;
pub mod cli;
mod consoles;
mod session;
mod shells;

use std::process::ExitCode;
use std::sync::Arc;

use shells::Shells;

/// The argument that makes the program a console's session instead of the keeper of all.
const SESSION: &str = "--session";

/// The program `berth-console`.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(option), Some(terminal)) = (arguments.next(), arguments.next())
        && option == SESSION
    {
        // Returns only if there is no session.
        eprintln!("berth-console: {}", session::become_shell(terminal.as_ref()));
        return ExitCode::FAILURE;
    }
    let consoles: Vec<_> = consoles::active().into_iter().map(Arc::new).collect();
    if consoles.is_empty() {
        eprintln!("berth-console: the kernel writes to no terminal; there is nothing to put a shell on");
    }
    let shells = Arc::new(Shells::start(&consoles));
    banner::keep_showing(&consoles, &shells)
}
