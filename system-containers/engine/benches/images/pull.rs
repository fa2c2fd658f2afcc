//! Pulling and unpacking, beside podman, skopeo with umoci, and the floor: the layers decompressed by the same
//! decompressor, one after the other, into `tar x`.
//!
//! A run ends when a container could start. Nobody syncs, but for the lines that say so: the engine does that while the
//! container starts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_tests::bench::Skipped;
use berth_tests::registry::Registry;

use crate::job;
use crate::made::{self, Content, Made, Method};
use crate::measure::{Bar, Cost, ROUNDS, cost, fresh, is_installed, judged, median, on, ratio, run, seconds, settle};

/// The most memory that the engine may have, in MiB.
const MEMORY: f64 = 64.0;

/// What the times of one image are of.
#[derive(Default)]
struct Times {
    ours_on_one: Vec<Cost>,
    floor_on_one: Vec<Cost>,
    ours_on_two: Vec<Duration>,
    floor_on_two: Vec<Duration>,
    synced: Vec<Duration>,
    floor_synced: Vec<Duration>,
    podman: Vec<Duration>,
    umoci: Vec<Duration>,
    memory: u64,
}

/// The images, by name.
fn layers(name: &str) -> Vec<Vec<u8>> {
    let mut content = Content::new(1);
    match name {
        "10,000 small files" => vec![made::layer(&mut content, "srv", 10_000, 8 << 10)],
        "4 large files" => (0..2).map(|layer| made::layer(&mut content, &format!("srv{layer}"), 2, 64 << 20)).collect(),
        _ => (0..20).map(|layer| made::layer(&mut content, &format!("srv{layer}"), 50, 64 << 10)).collect(),
    }
}

/// Prints the table's part.
pub fn measure(folder: &Path) -> Result<()> {
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => match error.downcast_ref::<Skipped>() {
            Some(skipped) => {
                println!("pull: skipped, {}", skipped.reason);
                return Ok(());
            }
            None => return Err(error),
        },
    };
    for name in ["10,000 small files", "4 large files", "20 layers"] {
        let layers = layers(name);
        for (method, suffix) in [(Method::Gzip, "gzip"), (Method::Zstd, "zstd")] {
            let made = made::image(&fresh(folder, "made")?, method, &layers)?;
            registry.push_folder(&made.folder, "bench:1")?;
            let mut times = Times::default();
            for _ in 0..ROUNDS {
                round(folder, &registry, &made, &mut times)?;
            }
            report(&format!("{name}, {suffix}"), &times);
        }
    }
    Ok(())
}

/// Everything once.
fn round(folder: &Path, registry: &Registry, made: &Made, times: &mut Times) -> Result<()> {
    // It stands for another machine: what is measured on one processor must not share that one with it.
    keep_to(registry, "1")?;
    let name = &registry.local_name();
    times.floor_on_one.push(floor(folder, made, "0", false)?);
    times.ours_on_one.push(ours(folder, name, "0", false, &mut times.memory)?);
    keep_to(registry, "0,1")?;
    let registry = name;
    times.floor_on_two.push(floor(folder, made, "0,1", false)?.time);
    times.ours_on_two.push(ours(folder, registry, "0,1", false, &mut times.memory)?.time);
    times.floor_synced.push(floor(folder, made, "0,1", true)?.time);
    times.synced.push(ours(folder, registry, "0,1", true, &mut times.memory)?.time);
    if is_installed("podman") {
        times.podman.push(podman(folder, registry)?);
    }
    if is_installed("skopeo") && is_installed("umoci") {
        times.umoci.extend(umoci(folder, registry)?);
    }
    Ok(())
}

fn keep_to(registry: &Registry, processors: &str) -> Result<()> {
    let process = registry.process().to_string();
    run(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", processors, &process])).map(drop)
}

fn ours(folder: &Path, registry: &str, processors: &str, durable: bool, memory: &mut u64) -> Result<Cost> {
    let state = fresh(folder, "state")?;
    let durable = if durable { "durable" } else { "usable" };
    let words = ["pull", state.to_str().context("a path")?, registry, "bench:1", durable];
    cost(|| {
        let (_, printed) = run(&mut on(processors, &job::command(&words)?))?;
        *memory = (*memory).max(printed.trim().parse()?);
        Ok(())
    })
}

fn floor(folder: &Path, made: &Made, processors: &str, durable: bool) -> Result<Cost> {
    let root = fresh(folder, "floor")?;
    cost(|| {
        for layer in &made.layers {
            let mut decompress = on(processors, &job::command(&["decompress", layer.to_str().context("a path")?])?);
            let mut decompress = decompress.stdout(Stdio::piped()).spawn()?;
            let mut tar = Command::new("tar");
            tar.arg("-x").arg("-C").arg(&root);
            let unpacked = on(processors, &tar).stdin(decompress.stdout.take().context("a pipe")?).status()?;
            ensure!(unpacked.success() && decompress.wait()?.success(), "the floor failed");
        }
        if durable { settle(&root) } else { Ok(()) }
    })
}

/// With overlay as its driver, in folders of its own.
fn podman(folder: &Path, registry: &str) -> Result<Duration> {
    let root = fresh(folder, "podman")?;
    let podman = || {
        let mut podman = Command::new("podman");
        podman.args(["--storage-driver", "overlay", "--root"]).arg(root.join("root"));
        podman.arg("--runroot").arg(root.join("run")).arg("--tmpdir").arg(root.join("tmp"));
        podman
    };
    let image = format!("{registry}/bench:1");
    let (time, _) = run(podman().args(["pull", "--quiet", "--tls-verify=false", &image]))?;
    // Its layers are mounted nowhere, but what it has mounted for itself goes with this.
    run(podman().args(["system", "reset", "--force"]))?;
    Ok(time)
}

/// None if this umoci does not know how the layers are compressed.
fn umoci(folder: &Path, registry: &str) -> Result<Option<Duration>> {
    let root = fresh(folder, "umoci")?;
    let (layout, bundle) = (format!("{}:1", root.join("layout").display()), root.join("bundle"));
    let begin = Instant::now();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
    run(skopeo.args([format!("docker://{registry}/bench:1"), format!("oci:{layout}")]))?;
    let unpacked = run(Command::new("umoci").args(["unpack", "--image", &layout]).arg(&bundle));
    let time = begin.elapsed();
    match unpacked {
        Ok(_) => Ok(Some(time)),
        Err(error) if error.to_string().contains("unsupported layer") || error.to_string().contains("zstd") => Ok(None),
        Err(error) => Err(error),
    }
}

fn report(name: &str, times: &Times) {
    println!("{name}:");
    let of = |costs: &[Cost], part: fn(&Cost) -> Duration| median(&costs.iter().map(part).collect::<Vec<_>>());
    let [ours, floor] = [&times.ours_on_one, &times.floor_on_one].map(|costs| of(costs, |cost| cost.time));
    seconds("  pull and unpack, one core", ours);
    ratio("    of decompressing into tar x", ours, floor, Bar::AtMost(1.3));
    let [ours, floor] = [&times.ours_on_one, &times.floor_on_one].map(|costs| of(costs, |cost| cost.processor));
    ratio("    the same in processor time", ours, floor, Bar::None);
    let [ours, floor] = [median(&times.ours_on_two), median(&times.floor_on_two)];
    seconds("  pull and unpack, two cores", ours);
    ratio("    of decompressing into tar x", ours, floor, Bar::Below(1.0));
    match median(&times.podman) {
        None => println!("    podman is not installed"),
        podman => ratio("    of podman pull (overlay)", ours, podman, Bar::AtMost(0.5)),
    }
    match median(&times.umoci) {
        None => println!("    skopeo or umoci is not installed, or cannot unpack such layers"),
        umoci => ratio("    of skopeo copy and umoci unpack", ours, umoci, Bar::AtMost(0.5)),
    }
    let [ours, floor] = [median(&times.synced), median(&times.floor_synced)];
    seconds("  pull, unpack and sync, two cores", ours);
    ratio("    of decompressing into tar x, and a sync", ours, floor, Bar::None);
    let memory = u32::try_from(times.memory / 1024).map_or(f64::INFINITY, f64::from);
    judged("  memory at its most", memory, &format!("{memory} MiB"), Bar::AtMost(MEMORY));
}
