//! What this binary does as a process of its own: the engine's work, and the decompression it is compared with. A job
//! prints the most memory that it has had, in KiB.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use berth_config::{Configuration, Source};
use berth_control::message::Registries;
use berth_engine::compression::{Compression, Decoder, MAGIC_BYTES};
use berth_engine::pull::Pulling;
use berth_engine::registry::{Patience, Settings, Shared};
use berth_engine::store::Store;
use berth_engine::{archive, import};

/// A job as a command.
pub fn command(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("job").args(words).stdin(Stdio::null());
    Ok(command)
}

/// Does one.
pub fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["pull", state, registry, image, durable] => pull(Path::new(state), registry, image, durable == "durable")?,
        ["import", state, archive] => import(Path::new(state), Path::new(archive))?,
        ["start", state, image, times] => crate::start::job(Path::new(state), image, times.parse()?)?,
        ["decompress", layer] => return decompress(Path::new(layer), &mut std::io::stdout().lock()),
        ["copy", target, ..] => {
            let mut target = File::create(target)?;
            words
                .get(2..)
                .unwrap_or_default()
                .iter()
                .try_for_each(|layer| decompress(Path::new(layer), &mut target))?;
        }
        _ => bail!("no such job: {arguments:?}"),
    }
    println!("{}", high_water_mark()?);
    Ok(())
}

/// Until a container could start from it, or until it would survive a power cut.
fn pull(state: &Path, registry: &str, image: &str, durable: bool) -> Result<()> {
    let text = format!("[registries.\"{registry}\"]\nplain_http = true\n");
    let read = berth_config::load(&[Source::new("bench", text)]);
    let Configuration { registries, trust, proxy, images, .. } =
        read.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.configuration;
    let registries = Registries { registries, trust, proxy, images };
    let settings = Settings::new(registries, state);
    let store = Arc::new(Store::open(&state.join("images"), "bench")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reference = format!("{registry}/{image}").parse()?;
    runtime.block_on(async {
        let shared = Shared { pool: Arc::default(), tokens: Arc::default(), patience: Patience::default() };
        Pulling::new(Arc::clone(&store), shared).pull(&reference, settings, &Arc::default()).await
    })?;
    if durable {
        store.commit()?;
    }
    Ok(())
}

fn import(state: &Path, archive: &Path) -> Result<()> {
    let store = Store::open(&state.join("images"), "bench")?;
    let report = import::archive(&store, archive, "bench.tar", archive::identity(archive)?);
    ensure!(report.problems.is_empty() && report.unpacked > 0, "{report:?}");
    store.record_archive("bench.tar", report.record);
    // The catalogue of the jobs that follow; syncing is measured with pulls.
    if std::env::var_os("BERTH_BENCH_COMMIT").is_some() {
        store.commit()?;
    }
    Ok(())
}

/// The product's own decompressor, with nothing around it.
fn decompress(layer: &Path, target: &mut impl Write) -> Result<()> {
    let file = File::open(layer).with_context(|| format!("open {}", layer.display()))?;
    let mut start = [0; MAGIC_BYTES];
    let length = file.read_at(&mut start, 0)?;
    let compression = Compression::detect_layer(start.get(..length).unwrap_or_default())?;
    let mut decoder = Decoder::new(compression, BufReader::with_capacity(128 << 10, file), Box::new(|_| Ok(())))?;
    loop {
        let bytes = std::io::BufRead::fill_buf(&mut decoder)?;
        if bytes.is_empty() {
            return Ok(());
        }
        target.write_all(bytes)?;
        let length = bytes.len();
        std::io::BufRead::consume(&mut decoder, length);
    }
}

fn high_water_mark() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
