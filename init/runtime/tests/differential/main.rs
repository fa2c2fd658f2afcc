//! `berth-oci`, crun and runc run the same bundles on the same machine, and what comes of them is compared.
//!
//! Every case says what the specification demands. A peer that does something else is named in the case with the
//! reason; one that differs without being named fails the case, because then either berth-oci or the case is wrong.
//! README.md lists which clause of the specification is covered by which case.
//!
//! Needs root and the peers (`fetch-peers.sh` gets them); without either every case is reported as ignored.

mod bundle;
mod cases;
mod machine;
mod tool;

use std::panic::{AssertUnwindSafe, catch_unwind};

fn main() {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases: Vec<_> = cases::all().into_iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", cases.len());
    if let Err(reason) = machine::enter() {
        for (name, _) in &cases {
            println!("test {name} ... ignored, {reason}");
        }
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored\n", cases.len());
        return;
    }
    let mut failed = Vec::new();
    for (name, case) in &cases {
        print!("test {name} ... ");
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(()) => println!("ok"),
            Err(_) => {
                failed.push(name);
                println!("FAILED");
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed; 0 ignored\n", cases.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        std::process::exit(1);
    }
}
