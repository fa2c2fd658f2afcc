//! The engine by hand, on any Linux machine as root: for tests and measurements without a machine that boots.
//!
//! ```text
//! berth-engine import STATE ARCHIVE…   imports archives into the store below STATE
//! berth-engine pull STATE IMAGE [FILE] pulls an image, with the registries of this configuration
//! berth-engine images STATE            lists names and layers
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use berth_config::{Diagnostic, Source};
use berth_control::images::Pulled;
use berth_control::message::Registries;

use crate::archive;
use crate::import::{self, describe};
use crate::pull::Pulling;
use crate::reference::Reference;
use crate::registry::{Patience, Settings, Shared};
use crate::store::{Store, StoreError};

const USAGE: &str = "usage: berth-engine import STATE ARCHIVE...
       berth-engine pull STATE IMAGE [CONFIGURATION]
       berth-engine images STATE";

/// Runs one command; `arguments` are those after the program's name.
pub fn run(arguments: &[String]) -> ExitCode {
    let result = match arguments {
        [command, state, archives @ ..] if command == "import" && !archives.is_empty() => import(state, archives),
        [command, state, image, configuration @ ..] if command == "pull" && configuration.len() <= 1 => {
            return pull(state, image, configuration.first());
        }
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
        match archive::identity(path) {
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

fn pull(state: &str, image: &str, configuration: Option<&String>) -> ExitCode {
    match try_pull(state, image, configuration) {
        Ok(pulled) => {
            println!("{} {}", pulled.image, pulled.digest);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("berth-engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_pull(state: &str, image: &str, configuration: Option<&String>) -> Result<Pulled, String> {
    let reference: Reference = image.parse().map_err(|error| describe(&error))?;
    let settings = match configuration {
        None => Settings::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
            let wrong = |mistakes: Vec<Diagnostic>| mistakes.iter().map(ToString::to_string).collect::<String>();
            let read = berth_config::load(&[Source::new(path, text)]).map_err(wrong)?.configuration;
            let berth_config::Configuration { registries, trust, proxy, images, .. } = read;
            let registries = Registries { registries, trust, proxy, images };
            Settings::new(registries, Path::new(path).parent().unwrap_or(Path::new(".")))
        }
    };
    let store = Store::open(&Path::new(state).join("images"), "by hand").map_err(|error| describe(&error))?;
    let store = Arc::new(store);
    let failed = |error: std::io::Error| format!("start the event loop: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let pulled = runtime.block_on(async {
        let shared = Shared { pool: Arc::default(), tokens: Arc::default(), patience: Patience::default() };
        Pulling::new(Arc::clone(&store), shared).pull(&reference, settings, &Arc::default()).await
    });
    let pulled = pulled.map_err(|error| describe(&error))?;
    store.commit().and_then(|()| store.empty_tmp()).map_err(|error| describe(&error))?;
    Ok(pulled)
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
