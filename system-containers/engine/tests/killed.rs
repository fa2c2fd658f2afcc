//! An engine that is killed at any point of a pull or an import leaves a store that opens, names nothing that is not
//! whole, and finishes the work the next time.

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use support::client::image;
use support::registry::Registry;
use support::{Machine, oci_archive, skip};

/// How often a pull is killed, and an import, which is an unpack without a network.
const KILLS: u32 = 200;

/// Who has it starts a program or has a store open: a child has its parent's descriptors until it executes, and so
/// would hold the lock of a store that another test is just closing.
static FORKING: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The example program, which cargo builds beside the tests.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent()?.parent()?.join("examples/berth-engine");
    program.exists().then_some(program)
}

/// Opens the store; whether it has the image. Every layer that it names must be whole.
fn look(machine: &Machine, name: &str) -> bool {
    let _alone = alone();
    let store = machine.store();
    let tars: Vec<Vec<u8>> = image().layers.into_iter().map(|(_, tar)| tar).collect();
    let diff_ids: Vec<_> = tars.iter().map(|tar| berth_engine::digest::Digest::of(tar)).collect();
    for (tar, id) in tars.iter().zip(berth_engine::store::chain_ids(&diff_ids)) {
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

/// Kills the program with these arguments again and again, at points that are spread over its work.
fn kill(machine: &Machine, program: &PathBuf, arguments: &[String], name: &str, kills: u32) {
    let spawn = || start(Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()));
    let began = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let whole = began.elapsed();
    assert!(look(machine, name));
    let mut finished = 0;
    // Numbers of a fixed sequence (Knuth's multiplier), so that every run kills at the same parts of the work.
    let mut random = 1_u64;
    for _ in 0..kills {
        if look(machine, name) {
            finished += 1;
            std::fs::remove_dir_all(machine.path("images")).unwrap();
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = u32::try_from(random >> 33).unwrap();
        let mut engine = spawn();
        // Not a wait for something: where this ends is where the engine dies.
        std::thread::sleep(whole.mul_f64(f64::from(part) / f64::from(1_u32 << 31)));
        engine.kill().unwrap();
        let ended = engine.wait().unwrap().success();
        assert!(!ended || look(machine, name), "what has ended is lost");
    }
    assert!(finished < kills, "it was never caught");
    assert!(spawn().wait().unwrap().success() && look(machine, name));
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
    kill(&machine, &program, &arguments.map(str::to_owned), &name, KILLS);
}

#[test]
fn a_killed_import_is_finished_by_the_next() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let archive = machine.archive("demo.tar", &oci_archive(&[image()]));
    let state = machine.path("");
    let arguments = ["import", state.to_str().unwrap(), archive.to_str().unwrap()];
    kill(&machine, &program, &arguments.map(str::to_owned), "demo", KILLS);
}
