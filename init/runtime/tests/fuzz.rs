//! A short run of every fuzz target of the package's `fuzz/`, built by the compiler that the rest is built by, for longer
//! with `BERTH_FUZZ_SECONDS`. What libFuzzer needs in the program is a pass of LLVM (SanitizerCoverage in clang's manual);
//! the address sanitizer, which only a nightly compiler has, is `cargo +nightly fuzz run TARGET` in `fuzz/`. The packages
//! that have such a folder share this file.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

/// Seconds for each target, unless `BERTH_FUZZ_SECONDS` says otherwise.
const SECONDS: &str = "3";

/// Counters of branches and of what is compared, where libFuzzer looks for them.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen: Vec<String> = targets().into_iter().filter(|target| target.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    let programs = if chosen.is_empty() { Ok(PathBuf::new()) } else { build() };
    let mut failed = 0;
    for target in &chosen {
        match programs.clone().and_then(|programs| run(&programs, target)) {
            Ok(()) => println!("test {target} ... ok"),
            Err(tail) => {
                failed += 1;
                println!("test {target} ... FAILED\n{tail}");
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {failed} failed; 0 ignored\n", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The package's folder of targets, a workspace of its own.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Each is a file of `fuzz/targets`.
fn targets() -> Vec<String> {
    let files = std::fs::read_dir(folder().join("targets")).unwrap();
    let name = |file: std::fs::DirEntry| Some(file.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = files.filter_map(|file| name(file.unwrap())).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// Builds all targets. Returns the folder of the programs; an error is the end of what the compiler said.
fn build() -> Result<PathBuf, String> {
    // With a target named, build scripts and macros are not instrumented. All packages share what they are built of.
    let machine = concat!(env!("CARGO_TARGET_TMPDIR"), "/../fuzz");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--locked", "--target", &triple, "--target-dir", machine]);
    command.current_dir(folder()).env("RUSTFLAGS", INSTRUMENTED).env_remove("CARGO_BUILD_TARGET");
    // Lines are enough for a trace.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    finish(&mut command)?;
    Ok(Path::new(machine).join(triple).join("debug"))
}

/// Runs a target from what it has found before and from its seeds; an error is the end of what it said.
fn run(programs: &Path, target: &str) -> Result<(), String> {
    let seconds = std::env::var("BERTH_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let (corpus, seeds) = (folder().join("corpus").join(target), folder().join("seeds").join(target));
    let artifacts = folder().join("artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    }
    let mut command = Command::new(programs.join(target));
    command.arg(&corpus).args(seeds.is_dir().then_some(&seeds)).current_dir(folder());
    command.args([&format!("-max_total_time={seconds}"), "-max_len=8192", "-timeout=30"]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let said = finish(&mut command)?;
    // Without counters it is no more than a run of random bytes.
    if said.contains("is the code instrumented") { Err(said) } else { Ok(()) }
}

/// What a command said, or the end of it where it failed.
fn finish(command: &mut Command) -> Result<String, String> {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&stderr).into_owned();
    if status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    Err(lines[lines.len().saturating_sub(40)..].join("\n"))
}
