//! What the engine takes of the memory, whatever the image is, and whatever a container has left behind.

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::registry::Registry;
use support::{Image, Machine, Tar, descriptor, oci_archive, program, skip};

/// Between two looks at a process: what it had most of is not told when it has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// What a layer's file has in bytes: a window is filled.
const CONTENT: usize = 36 << 20;

/// A layer as zstd:chunked has them: the first frame is small, the others have the largest window that is taken.
fn layer(name: &str) -> (Vec<u8>, Vec<u8>) {
    let tar = Tar::default().file(name, &vec![name.as_bytes()[0]; CONTENT]).finish();
    let (first, rest) = tar.split_at(512);
    let mut blob = zstd::encode_all(first, 1).unwrap();
    let mut encoder = zstd::stream::write::Encoder::new(&mut blob, 1).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(rest).unwrap();
    encoder.finish().unwrap();
    (tar, blob)
}

/// The most resident memory of a program, in KiB; it must succeed.
fn peak(program: &PathBuf, arguments: &[&str]) -> u64 {
    let mut engine = Command::new(program).args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", engine.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(most).max(most);
        if let Some(ended) = engine.try_wait().unwrap() {
            assert!(ended.success());
            return most;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The most resident memory of a pull of demo:1, in KiB.
fn pull(machine: &Machine, program: &PathBuf, registry: &Registry) -> u64 {
    let configuration = machine.path("berth.toml");
    std::fs::write(&configuration, format!("[registries.'{}']\nplain_http = true\n", registry.name())).unwrap();
    let (state, name) = (machine.path(""), format!("{}/demo:1", registry.name()));
    peak(program, &["pull", state.to_str().unwrap(), &name, configuration.to_str().unwrap()])
}

#[test]
fn an_index_of_nothing_much_takes_what_its_text_takes() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let registry = Registry::good();
    let image = support::Image::new("demo", vec![Tar::default().finish()]);
    let (manifest, bytes) = registry.push("demo", "2", &image);
    let entry = descriptor("manifest.v1+json", &bytes, "");
    let nothing = "0,".repeat(900_000);
    let annotations = (0..150_000).map(|number| format!(r#""{number}":"","#)).collect::<String>();
    let other =
        format!(r#"{{"digest":"{manifest}","size":1,"platform":{{"os":"x"}},"annotations":{{{annotations}"":""}}}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{nothing}{other},{entry}]}}"#);
    registry.put_manifest("demo", "1", index.as_bytes());
    let peak = pull(&machine, &program, &registry);
    assert!(peak < 32 << 10, "{peak} KiB");
}

#[test]
fn layers_with_large_windows_come_one_after_the_other() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let registry = Registry::good();
    let put = |blob: &[u8]| {
        let digest = berth_engine::digest::Digest::of(blob);
        registry.put(&format!("/v2/demo/blobs/{digest}"), "application/octet-stream", blob);
    };
    let layers = ["a", "b"].map(layer);
    let image = support::Image::new("demo", layers.iter().map(|(tar, _)| tar.clone()).collect());
    let config = image.config();
    put(&config);
    layers.iter().for_each(|(_, blob)| put(blob));
    let descriptors = layers.map(|(_, blob)| descriptor("layer.v1.tar+zstd", &blob, "")).join(",");
    let config = descriptor("config.v1+json", &config, "");
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{descriptors}]}}"#);
    registry.put_manifest("demo", "1", manifest.as_bytes());
    let peak = pull(&machine, &program, &registry);
    assert!(peak > 32 << 10, "{peak} KiB are no window");
    assert!(peak < 64 << 10, "{peak} KiB");
}

#[test]
fn a_directory_of_many_names_is_removed_without_remembering_them() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let store = machine.store();
    let left = machine.path("images/tmp/left/deep");
    std::fs::create_dir_all(&left).unwrap();
    for number in 0..80_000 {
        std::fs::File::create(left.join(format!("{number:0>250}"))).unwrap();
    }
    drop(store);
    let archive = machine.archive("x.tar", &oci_archive(&[Image::new("x", vec![Tar::default().finish()])]));
    let state = machine.path("");
    let peak = peak(&program, &["import", state.to_str().unwrap(), archive.to_str().unwrap()]);
    assert_eq!(std::fs::read_dir(machine.path("images/tmp")).unwrap().count(), 0);
    assert!(peak < 24 << 10, "{peak} KiB");
}

#[test]
fn what_images_have_to_say_is_not_remembered() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = program() else { return skip("the example berth-engine is not built") };
    let image = |number: u32| {
        let ports: Vec<String> = (0..200_000).map(|port| format!(r#""{number}{port}/tcp":{{}}"#)).collect();
        let process = format!(r#"{{"ExposedPorts":{{{}}}}}"#, ports.join(","));
        Image { process, ..Image::new(&number.to_string(), vec![Tar::default().finish()]) }
    };
    let images: Vec<Image> = (1..=6).map(image).collect();
    let archive = machine.archive("x.tar", &oci_archive(&images));
    let state = machine.path("");
    let imported = peak(&program, &["import", state.to_str().unwrap(), archive.to_str().unwrap()]);
    let opened = peak(&program, &["images", state.to_str().unwrap()]);
    assert!(imported < 96 << 10, "{imported} KiB");
    assert!(opened < 24 << 10, "{opened} KiB");
}
