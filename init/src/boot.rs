//! The boot as a table: what PID 1 does before its loop begins, in this order.
//!
//! No step can end the boot. One that fails is a problem that the console and the API tell of, and the next one is
//! tried. What comes after the table is driven by events: storage, then system containers and configuration, then user
//! containers.

use std::fs;
use std::path::Path;

use berth_config::SystemContainer;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::command_line::CommandLine;
use crate::machine::Machine;
use crate::supervisor::system_spec::BARE_ROOT;
use crate::{clock, journal, mounts};

/// A step: its name, and what it does. The text is for the timeline.
pub type Step = (&'static str, fn(&mut Machine) -> Result<String, String>);

/// Where the image keeps the system containers' definitions.
const SYSTEM_CONTAINERS: &str = "/usr/lib/berth/system-containers";

/// The controllers of the two trees of containers; those that a kernel lacks are left out.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Before the loop.
pub const PLAN: &[Step] = &[
    ("mount kernel file systems", mount_kernel_filesystems),
    ("start journal", start_journal),
    ("read kernel command line", read_command_line),
    ("start watchdog", Machine::start_watchdog),
    ("set kernel parameters", set_kernel_parameters),
    ("raise own limits", raise_limits),
    ("take over Ctrl-Alt-Del", take_over_keys),
    ("watch power buttons", watch_power_buttons),
    ("make cgroup trees", make_cgroup_trees),
    ("watch memory pressure", watch_pressure),
    ("make bare root", make_bare_root),
    ("name the machine", name_machine),
    ("watch devices", watch_devices),
    ("look for storage", look_for_storage),
];

/// Runs the table.
pub fn run(machine: &mut Machine) {
    for (name, step) in PLAN {
        let start_us = clock::microseconds();
        let outcome = step(machine);
        if let Err(reason) = &outcome {
            machine.facts.problems.push(format!("{name}: {reason}"));
        }
        machine.timeline.record(*name, start_us, outcome);
    }
}

fn all_or_nothing(problems: Vec<String>) -> Result<String, String> {
    if problems.is_empty() { Ok(String::new()) } else { Err(problems.join("; ")) }
}

fn mount_kernel_filesystems(_: &mut Machine) -> Result<String, String> {
    all_or_nothing(mounts::mount_early())
}

fn start_journal(_: &mut Machine) -> Result<String, String> {
    journal::start();
    Ok(format!("Berth {}", env!("CARGO_PKG_VERSION")))
}

fn read_command_line(machine: &mut Machine) -> Result<String, String> {
    let line = fs::read_to_string("/proc/cmdline").map_err(|error| format!("/proc/cmdline: {error}"))?;
    machine.command_line = CommandLine::parse(&line);
    machine.supervisor.facts.output_to_kernel = machine.command_line.output_to_kernel;
    Ok(String::new())
}

fn set_kernel_parameters(_: &mut Machine) -> Result<String, String> {
    all_or_nothing(mounts::apply_kernel_settings())
}

/// The kernel starts PID 1 with room for 1,024 descriptors; every container costs it about ten. In a container of another
/// system it may have to do with the hard limit that it finds.
fn raise_limits(_: &mut Machine) -> Result<String, String> {
    const DESCRIPTORS: u64 = 1 << 20; // fs.nr_open's default, the most there can be
    let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS) else { return Ok(String::new()) };
    let most = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    Err(format!("open files to {DESCRIPTORS}: {error}{}", if most.is_ok() { "; the hard limit is used" } else { "" }))
}

/// Ctrl-Alt-Del becomes a SIGINT to PID 1 instead of a reset (reboot(2)).
fn take_over_keys(_: &mut Machine) -> Result<String, String> {
    set_cad_enabled(false).map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn watch_power_buttons(machine: &mut Machine) -> Result<String, String> {
    let count = machine.watch_power_buttons().map_err(|error| error.to_string())?;
    Ok(if count == 0 { "the machine has none".to_owned() } else { String::new() })
}

fn make_cgroup_trees(_: &mut Machine) -> Result<String, String> {
    let root = Path::new("/sys/fs/cgroup");
    let available =
        fs::read_to_string(root.join("cgroup.controllers")).map_err(|error| format!("cgroup.controllers: {error}"))?;
    let enable: String = CONTROLLERS
        .iter()
        .filter(|controller| available.split_whitespace().any(|name| name == **controller))
        .map(|controller| format!("+{controller} "))
        .collect();
    let mut problems = Vec::new();
    for folder in [root.to_path_buf(), root.join("system"), root.join("user")] {
        if folder != root {
            problems.extend(mounts::make_folder(&folder, 0o755).err());
        }
        let file = folder.join("cgroup.subtree_control");
        problems.extend(fs::write(&file, &enable).err().map(|error| format!("{}: {error}", file.display())));
    }
    all_or_nothing(problems)
}

fn watch_pressure(machine: &mut Machine) -> Result<String, String> {
    machine.watch_pressure().map_err(|error| error.to_string())?;
    Ok(String::new())
}

/// A second mount of the root, on which nothing is ever mounted: what system containers see.
fn make_bare_root(_: &mut Machine) -> Result<String, String> {
    mounts::make_folder(Path::new(BARE_ROOT), 0o755)?;
    let fail = |error: nix::Error| format!("{BARE_ROOT}: {error}");
    mount(Some("/"), BARE_ROOT, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(fail)?;
    mount(None::<&str>, BARE_ROOT, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).map_err(fail)?;
    Ok(String::new())
}

/// And makes the files that exist from now on, whatever the network brings.
fn name_machine(machine: &mut Machine) -> Result<String, String> {
    machine.set_hostname();
    fs::write("/run/berth/resolv.conf", "").map_err(|error| format!("/run/berth/resolv.conf: {error}"))?;
    Ok(String::new())
}

fn watch_devices(machine: &mut Machine) -> Result<String, String> {
    machine.watch_devices().map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn look_for_storage(machine: &mut Machine) -> Result<String, String> {
    machine.start_storage();
    Ok(String::new())
}

/// State and user data are where they will be: everything else may begin.
pub fn after_storage(machine: &mut Machine) {
    let start_us = clock::microseconds();
    let outcome = declare_system_containers(machine);
    if let Err(reason) = &outcome {
        machine.facts.problems.push(reason.clone());
    }
    machine.timeline.record("declare system containers", start_us, outcome);
    let start_us = clock::microseconds();
    let outcome = machine.supervisor.reserve();
    if let Err(reason) = &outcome {
        machine.facts.problems.push(format!("reserve memory for system containers: {reason}"));
    }
    machine.timeline.record("divide the memory", start_us, outcome);
    machine.record_boot();
    machine.start_configuration();
}

/// What is declared and not there, because the last program's record could not be read as a whole.
pub fn declare_missing(machine: &mut Machine) {
    // Before the storage is ready there is nothing.
    if !machine.supervisor.list().is_empty()
        && let Err(reason) = declare_system_containers(machine)
    {
        log::error!("{reason}");
    }
    machine.supervisor.declare_missing();
}

/// Every definition that can be read, unless there is such a container; the others are told of.
fn declare_system_containers(machine: &mut Machine) -> Result<String, String> {
    let entries = fs::read_dir(SYSTEM_CONTAINERS).map_err(|error| format!("{SYSTEM_CONTAINERS}: {error}"))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if machine.supervisor.find(&name).is_some() {
            continue;
        }
        match read_definition(&path) {
            Ok(definition) => {
                machine.supervisor.declare_system(&name, definition);
                names.push(name);
            }
            Err(reason) => problems.push(format!("system container {name}: {reason}")),
        }
    }
    if problems.is_empty() { Ok(names.join(", ")) } else { Err(problems.join("; ")) }
}

fn read_definition(path: &Path) -> Result<SystemContainer, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let source = berth_config::Source::new(path.display().to_string(), text);
    berth_config::load_system_container(&source).map_err(|diagnostics| {
        let texts: Vec<String> =
            diagnostics.iter().map(|diagnostic| diagnostic.render(berth_config::Style::Plain)).collect();
        texts.join("\n")
    })
}
