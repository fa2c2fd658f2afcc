//! An engine that is killed at any point of a pull or an import leaves a store that opens, names nothing that is not
//! whole, and finishes the work the next time.

mod support;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use berth_engine::digest::Digest;
use berth_engine::store::chain_ids;
use berth_tests::steps::{self, Lasting};
use support::client::image;
use support::registry::Registry;
use support::{Machine, oci_archive, program, skip};

/// How often a pull is killed, and an import, which is an unpack without a network.
const KILLS: u32 = 200;
/// The steps that either has for certain.
const STEPS: u32 = 50;
/// The layers of the image.
const LAYERS: usize = 4;

/// Who has it starts a program or has a store open: a child has its parent's descriptors until it executes, and so
/// would hold the lock of a store that another test is just closing.
static FORKING: Mutex<()> = Mutex::new(());

/// The layers of the image: the archives and the chain IDs.
static EXPECTED: LazyLock<Vec<(Vec<u8>, Digest)>> = LazyLock::new(|| {
    let tars: Vec<Vec<u8>> = image().layers.into_iter().map(|(_, tar)| tar).collect();
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
    tars.into_iter().zip(chain_ids(&diff_ids)).collect()
});

fn alone() -> MutexGuard<'static, ()> {
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the store; whether it has the image. Every layer that it names must be whole.
fn look(machine: &Machine, name: &str) -> bool {
    let _alone = alone();
    let store = machine.store();
    for &(ref tar, id) in EXPECTED.iter() {
        let name = std::str::from_utf8(&tar[..1]).unwrap();
        if store.has_layer(id) {
            let content = support::content(&store, id, name);
            assert_eq!(&tar[512..512 + content.len()], content);
        } else {
            assert!(!store.layer_path(id).exists(), "a layer that is not named is gone");
        }
    }
    let found = store.resolve(&name.parse().unwrap()).is_some();
    store.empty_tmp().unwrap();
    assert_eq!(std::fs::read_dir(machine.path("images/tmp")).unwrap().count(), 0);
    found
}

/// Returns when it executes.
fn start(command: &mut Command) -> Child {
    let _alone = alone();
    command.spawn().unwrap()
}

/// How many layers of the image there are, and whether there is any sign that it is being brought.
fn traces(machine: &Machine) -> (usize, bool) {
    let [drafts, layers] =
        ["images/tmp", "images/layers/sha256"].map(|part| match std::fs::read_dir(machine.path(part)) {
            Ok(entries) => entries.count(),
            // It was killed before it made the store.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => panic!("{error}"),
        });
    (layers, drafts + layers > 0)
}

/// Has a program begin its work when it is followed, and ends it at a step (see [`steps`]); with the steps that it came to.
fn end_at(program: &PathBuf, arguments: &[String], step: u32) -> (ExitStatus, u32) {
    followed(program, arguments, |engine| steps::end_at(engine, step))
}

/// The same for who follows it otherwise.
fn followed<T>(program: &PathBuf, arguments: &[String], follow: impl FnOnce(u32) -> JoinHandle<T>) -> (ExitStatus, T) {
    // A program that is executed by a shell that has waited does not get ahead of who follows it.
    let mut command = Command::new("sh");
    command.args(["-c", r#"read go && exec "$@""#, "sh"]).arg(program).args(arguments);
    let mut engine = start(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()));
    let follower = follow(engine.id());
    engine.stdin.take().unwrap().write_all(b"\n").unwrap();
    let seen = follower.join().unwrap();
    (engine.wait().unwrap(), seen)
}

/// Kills the program with these arguments again and again, at points that are spread over its work.
fn kill(machine: &Machine, program: &PathBuf, arguments: &[String], name: &str) {
    let begin_anew = || std::fs::remove_dir_all(machine.path("images")).unwrap();
    let (status, whole) = end_at(program, arguments, u32::MAX);
    assert!(status.success() && look(machine, name) && whole >= STEPS, "{status}, {whole} steps");
    let (mut caught, mut seen) = (0, [0_u32; LAYERS + 1]);
    // Numbers of a fixed sequence (Knuth's multiplier), so that every run kills at the same parts of the work.
    let mut random = 1_u64;
    for _ in 0..KILLS {
        if look(machine, name) {
            begin_anew();
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let step = u32::try_from((random >> 33) % u64::from(whole)).unwrap() + 1;
        let (status, _) = end_at(program, arguments, step);
        let (layers, has_begun) = traces(machine);
        seen[layers] += 1;
        caught += u32::from(status.signal().is_some() && has_begun);
        assert!(!status.success() || look(machine, name), "what has ended is lost");
    }
    assert!(caught >= KILLS / 2, "{caught} of {KILLS} were caught in mid-work, with {seen:?} layers");
    let some: u32 = seen[1..LAYERS].iter().sum();
    assert!(seen[0] > 0 && some > 0 && seen[LAYERS] > 0, "{caught} were caught, with {seen:?} layers");
    assert!(end_at(program, arguments, u32::MAX).0.success() && look(machine, name));
}

#[test]
fn a_killed_pull_is_finished_by_the_next() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let configuration = machine.path("berth.toml");
    std::fs::write(&configuration, format!("[registries.'{}']\nplain_http = true\n", registry.name())).unwrap();
    let name = format!("{}/demo:1", registry.name());
    let state = machine.path("");
    let arguments = ["pull", state.to_str().unwrap(), &name, configuration.to_str().unwrap()];
    kill(&machine, &program, &arguments.map(str::to_owned), &name);
}

/// What no killed process can show: that a catalogue names nothing that a cut of the power takes away.
#[test]
fn layers_are_on_the_disk_before_the_catalogue_names_them() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let archive = machine.archive("demo.tar", &oci_archive(&[image()]));
    let state = machine.path("");
    let arguments = ["import", state.to_str().unwrap(), archive.to_str().unwrap()].map(str::to_owned);
    let (status, seen) = followed(&program, &arguments, steps::lasting);
    assert!(status.success() && look(&machine, "demo"));
    // Every layer gets its name, then all is synced, then the catalogue, then that gets its name and keeps it.
    let catalogue = [Lasting::SyncAll, Lasting::Sync, Lasting::Rename, Lasting::Sync];
    assert!(seen.ends_with(&catalogue), "{seen:?}");
    let renames = seen[..seen.len() - catalogue.len()].iter().filter(|step| **step == Lasting::Rename);
    assert!(renames.count() >= LAYERS, "{seen:?}");
}

#[test]
fn a_killed_import_is_finished_by_the_next() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let archive = machine.archive("demo.tar", &oci_archive(&[image()]));
    let state = machine.path("");
    let arguments = ["import", state.to_str().unwrap(), archive.to_str().unwrap()];
    kill(&machine, &program, &arguments.map(str::to_owned), "demo");
}
