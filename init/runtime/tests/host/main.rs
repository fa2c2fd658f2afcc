//! The library against this machine's kernel: containers are really made.
//!
//! Needs root; without it every case is reported as ignored. One thread (the library's callers must be), in a mount
//! namespace of its own with cgroup v2 at /sys/fs/cgroup, so that nothing of it shows on the machine.

mod cases;
mod container;

use std::panic::{AssertUnwindSafe, catch_unwind};

fn main() {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases: Vec<_> = cases::ALL.iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", cases.len());
    if !rustix::process::geteuid().is_root() {
        for (name, _) in &cases {
            println!("test {name} ... ignored, needs root");
        }
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored\n", cases.len());
        return;
    }
    container::enter_private_machine();
    let mut failed = 0;
    for (name, case) in &cases {
        print!("test {name} ... ");
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(()) => println!("ok"),
            Err(_) => {
                failed += 1;
                println!("FAILED");
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed; 0 ignored\n", cases.len() - failed, failed);
    if failed > 0 {
        std::process::exit(1);
    }
}
