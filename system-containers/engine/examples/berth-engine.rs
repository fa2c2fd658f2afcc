//! The engine as a program of its own, for trying it by hand: `cargo run -p berth-engine --example berth-engine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_engine::main()
}
