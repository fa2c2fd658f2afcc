//! The engine by hand, on any Linux machine as root: for tests and measurements without a machine that boots.
//!
//! ```text
//! berth-engine import STATE ARCHIVE…   imports archives into the store below STATE
//! berth-engine images STATE            lists names and layers
//! ```

use std::path::Path;
use std::process::ExitCode;

use crate::import::{self, describe};
use crate::store::{Store, StoreError};

const USAGE: &str = "usage: berth-engine import STATE ARCHIVE...\n       berth-engine images STATE";

/// Runs one command; `arguments` are those after the program's name.
pub fn run(arguments: &[String]) -> ExitCode {
    let result = match arguments {
        [command, state, archives @ ..] if command == "import" && !archives.is_empty() => import(state, archives),
        [command, state] if command == "images" => list(state).map(|()| true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("berth-engine: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn import(state: &str, archives: &[String]) -> Result<bool, StoreError> {
    let store = Store::open(&Path::new(state).join("images"), "by hand")?;
    let mut sound = true;
    for archive in archives {
        let path = Path::new(archive);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match import::identity(path) {
            Ok(identity) => {
                let report = import::archive(&store, path, &name, identity);
                for problem in &report.problems {
                    eprintln!("berth-engine: {problem}");
                }
                sound &= report.problems.is_empty();
                store.record_archive(&name, report.record);
            }
            Err(error) => {
                eprintln!("berth-engine: read {archive}: {error}");
                sound = false;
            }
        }
    }
    store.commit()?;
    store.empty_tmp()?;
    Ok(sound)
}

fn list(state: &str) -> Result<(), StoreError> {
    let store = Store::open(&Path::new(state).join("images"), "by hand")?;
    for (name, digest) in store.names() {
        println!("{name} {digest}");
        for layer in store.image(digest).iter().flat_map(|image| &image.chain) {
            println!("  {}", store.layer_path(*layer).display());
        }
    }
    Ok(())
}
