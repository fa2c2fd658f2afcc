//! `berth-oci`, the calls that PID 1 makes, crun and runc run the same bundles on the same machine, and what comes of
//! them is compared.
//!
//! Every case says what the specification demands. A peer that does something else is named in the case with the
//! reason; one that differs without being named fails the case, because then either berth-oci or the case is wrong.
//! README.md lists which clause of the specification is covered by which case.
//!
//! Needs root and the peers (`image-build/fetch-debian.sh` gets them); without either every case is reported as ignored.
//! `--by library` lets only some take part, `--brought DIRECTORY` needs no peers: so /tests runs it in the booted image.

mod bundle;
mod cases;
mod library;
mod machine;
mod tool;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::tool::Runtime;

/// Why a case is not run where only the library takes part.
const OF_COMMANDS: &str = "of the command line alone";

#[derive(Default)]
struct Options {
    filters: Vec<String>,
    by: Vec<Runtime>,
    brought: Option<PathBuf>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--brought" => options.brought = arguments.next().map(PathBuf::from),
                "--by" => {
                    let name = arguments.next().unwrap_or_default();
                    let runtime = Runtime::ALL.into_iter().find(|runtime| runtime.name() == name);
                    options.by.push(runtime.unwrap_or_else(|| panic!("no runtime is called {name:?}")));
                }
                // What cargo passes to every test.
                other if other.starts_with('-') => {}
                other => options.filters.push(other.to_owned()),
            }
        }
        if options.by.is_empty() {
            options.by = Runtime::ALL.into();
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    not_applicable: usize,
}

impl Tally {
    fn run(&mut self, (name, case): cases::Test, by: &[Runtime]) {
        print!("test {name} ... ");
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(case));
        let (count, text) = match (outcome, tool::skipped(), tool::compared()) {
            (Err(_), ..) => (&mut self.failed, "FAILED".to_owned()),
            (Ok(()), Some(reason), _) => (&mut self.ignored, format!("ignored, {reason}")),
            (Ok(()), None, (false, _)) => (&mut self.not_applicable, format!("not applicable, {OF_COMMANDS}")),
            (Ok(()), None, (true, false)) if by.contains(&Runtime::Library) => {
                (&mut self.passed, format!("ok ({OF_COMMANDS})"))
            }
            (Ok(()), None, _) => (&mut self.passed, "ok".to_owned()),
        };
        *count += 1;
        println!("{text}");
    }
}

fn main() {
    let options = Options::parse();
    let cases: Vec<_> = cases::all().into_iter().filter(|(name, _)| options.wants(name)).collect();
    println!("\nrunning {} tests", cases.len());
    if let Err(reason) = machine::enter(options.brought.as_deref()) {
        for (name, _) in &cases {
            println!("test {name} ... ignored, {reason}");
        }
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored\n", cases.len());
        return;
    }
    tool::choose(options.by.clone());
    let mut tally = Tally::default();
    cases.into_iter().for_each(|case| tally.run(case, &options.by));
    let Tally { passed, failed, ignored, not_applicable } = tally;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; {not_applicable} not applicable\n"
    );
    if failed > 0 {
        std::process::exit(1);
    }
}
