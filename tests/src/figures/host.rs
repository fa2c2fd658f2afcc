//! Figures of the image's root on this host's kernel, beside podman with conmon and crun on the same: see [`crate::host`].

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_image_build::userland;
use berth_image_build::workspace::Workspace;

use super::{Figure, library, median};
use crate::archive::{Image, Layer};
use crate::host::podman::Podman;
use crate::host::{Host, Namespaces, SYSTEM_CONTAINERS, berth, succeeded};

/// The image of both: one static file.
const IMAGE: &str = "localhost/true:1";

/// How many containers are compared for what each costs.
const BESIDE: u32 = 20;

/// How many Berth runs for what each costs and how long listing takes.
const MANY: u32 = 1000;

/// How long PID 1 is looked at while nothing happens.
const REST: Duration = Duration::from_secs(60);

/// How long a container ends as soon as it starts.
const LOOP: Duration = Duration::from_secs(60);

/// How many processes lose their parent.
const ORPHANS: u32 = 100_000;

/// How long a container prints as fast as it can.
const FLOOD: Duration = Duration::from_secs(5);

/// Measures all of it; `runs` of each kind of start, in turns. Shows figures as they come.
///
/// # Errors
/// If something does not run.
pub fn measure(workspace: &Workspace, runs: usize, show: impl Fn(Vec<Figure>)) -> Result<()> {
    let program = fs::read(userland::build(workspace)?.busybox)?;
    let archive = Image::new(IMAGE, &["/bin/true"]).layer(Layer::busybox(&program)).docker_archive();
    let mut host = Host::start(workspace, &[("true.tar", archive.clone())])?;
    show(rest(&host)?);
    let podman = Podman::start(workspace, &archive)?;
    show(starts(&host, &podman, runs)?);
    show(cost_of_shims(&podman)?);
    drop(podman);
    show(flood(&host)?);
    show(crash_loop(&mut host)?);
    show(orphans(&host)?);
    show(many(workspace, &mut host)?);
    Ok(())
}

/// Command to prompt, with and without a network of the container's own.
fn starts(host: &Host, podman: &Podman, runs: usize) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for network in ["none", "bridge"] {
        let words = ["run", "--rm", "--network", network, IMAGE, "/bin/true"];
        let ours = || host.command(&[&["/usr/bin/berth"], &words[..]].concat());
        let theirs = || podman.command(&words);
        let (mut berth, mut peer) = (vec![time(ours())?], Vec::new());
        berth.clear(); // the first of each makes what later ones find
        time(theirs())?;
        for _ in 0..runs {
            berth.push(time(ours())?);
            peer.push(time(theirs())?);
        }
        let (berth, peer) = (median(&berth).context("no run")?, median(&peer).context("no run")?);
        let name = format!("run --rm of a static true, network {network}");
        figures.push(Figure::new(format!("{name}: berth"), milliseconds(berth)));
        figures.push(Figure::new(format!("{name}: podman"), milliseconds(peer)));
        let ratio = format!("{:.3}", berth.as_secs_f64() / peer.as_secs_f64());
        figures.push(Figure::new(format!("{name}: ratio"), ratio).at_most(0.2));
    }
    Ok(figures)
}

fn time(mut command: Command) -> Result<Duration> {
    let begin = Instant::now();
    let output = command.output()?;
    let took = begin.elapsed();
    succeeded(&output).map(|_| took).with_context(|| format!("{command:?}"))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// What podman keeps for each container that runs.
fn cost_of_shims(podman: &Podman) -> Result<Vec<Figure>> {
    for _ in 0..BESIDE {
        time(podman.command(&["run", "--detach", "--network", "none", IMAGE, "/bin/sleep", "1000000"]))?;
    }
    let shims = processes_named("conmon")?;
    let sizes: Vec<u64> = shims.into_iter().filter_map(proportional).collect();
    let removed = podman.command(&["rm", "--force", "--all", "--time", "0"]).output()?;
    ensure!(sizes.len() >= BESIDE as usize, "{} processes conmon", sizes.len());
    succeeded(&removed)?;
    let each = median(&sizes).unwrap_or_default();
    Ok(vec![Figure::new("userland of each further one, podman's conmon, PSS", format!("{each} KiB"))])
}

/// While nothing happens.
fn rest(host: &Host) -> Result<Vec<Figure>> {
    let switches = || -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        Ok(of("voluntary_ctxt_switches:").unwrap_or_default() + of("nonvoluntary_ctxt_switches:").unwrap_or_default())
    };
    // The engine has just started again; what follows from that is soon over.
    std::thread::sleep(Duration::from_secs(5));
    let before = switches()?;
    std::thread::sleep(REST);
    let woken = switches()? - before;
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
    Ok(vec![
        Figure::new(format!("PID 1 at rest: wake-ups in {} s", REST.as_secs()), woken.to_string()).at_most(0.0),
        Figure::new("PID 1 at rest: resident", resident).at_most(4096.0),
    ])
}

/// What PID 1 has to do with what containers print.
fn flood(host: &Host) -> Result<Vec<Figure>> {
    host.berth(&["run", "--detach", "--rm", "--name", "flood", "--network", "none", IMAGE, "/bin/busybox", "yes"])?;
    let (before, logs_before) = (processor_time(host.pid())?, processor_time(host.service("logs")?)?);
    std::thread::sleep(FLOOD);
    let used = processor_time(host.pid())? - before;
    let logs = processor_time(host.service("logs")?)? - logs_before;
    host.berth(&["rm", "--force", "flood"])?;
    Ok(vec![
        Figure::new("a flood of output: processor time of logs", format!("{logs} ms")),
        Figure::new("a flood of output: processor time of PID 1", format!("{used} ms")).at_most(0.0),
    ])
}

/// A container that cannot run and is to run always: what it costs the whole machine, its own programs included.
fn crash_loop(host: &mut Host) -> Result<Vec<Figure>> {
    let folder = host.namespaces().cgroup.clone();
    let used = || -> Result<u64> {
        let text = fs::read_to_string(folder.join("cpu.stat"))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("cpu.stat has no usage_usec")?;
        Ok(line.parse()?)
    };
    let before = used()?;
    let words = ["run", "--detach", "--restart", "always", "--name", "loop", "--network", "none", IMAGE];
    host.berth(&[&words[..], &["/bin/sh", "-c", "exit 1"]].concat())?;
    std::thread::sleep(LOOP);
    let took = used()? - before;
    let listed: serde_json::Value = serde_json::from_str(&host.berth(&["inspect", "loop"])?)?;
    host.berth(&["rm", "--force", "loop"])?;
    let restarts = listed.pointer("/0/restarts").context("no restarts")?;
    let share = took as f64 / LOOP.as_micros() as f64 * 100.0;
    Ok(vec![
        Figure::new(format!("a crash loop of {} s: restarts", LOOP.as_secs()), restarts.to_string()),
        Figure::new("  of a processor, all of Berth and the container", format!("{share:.2} %")),
    ])
}

/// Children that are left to PID 1, a thousand at a time, nearly all of them dead already.
fn orphans(host: &Host) -> Result<Vec<Figure>> {
    let leave = "i=0; while [ $i -lt 1000 ]; do : & i=$((i+1)); done";
    let (children, before, began) = (children_of(host.pid())?, processor_time(host.pid())?, Instant::now());
    for _ in 0..ORPHANS / 1000 {
        time(host.command(&["/usr/bin/sh", "-c", leave]))?;
        host.berth(&["status"])?;
    }
    let used = processor_time(host.pid())? - before;
    let left = children_of(host.pid())?.saturating_sub(children);
    Ok(vec![
        Figure::new(format!("{ORPHANS} orphans are left to PID 1 within"), milliseconds(began.elapsed())),
        Figure::new("  its processor time", format!("{used} ms")),
        Figure::new("  left unreaped", left.to_string()).at_most(0.0),
    ])
}

/// In milliseconds, as the kernel counts it (proc(5), /proc/pid/schedstat: nanoseconds on the processor).
fn processor_time(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds: u64 = text.split_whitespace().next().context("schedstat")?.parse()?;
    Ok(nanoseconds / 1_000_000)
}

/// A thousand at once.
fn many(workspace: &Workspace, host: &mut Host) -> Result<Vec<Figure>> {
    let configuration = format!(
        "[containers.a]\nimage = \"{IMAGE}\"\ncommand = [\"/bin/sleep\", \"1000000\"]\nnetwork_mode = \"none\"\n"
    );
    apply(host, &configuration)?;
    host.namespaces().wait_for("one container", |it| Ok((running(it)? == 1).then_some(())))?;
    let least = userland_of(host)?;
    let children = children_of(host.pid())?;
    let began = Instant::now();
    apply(host, &format!("{configuration}replicas = {MANY}\n"))?;
    // To ask PID 1 again and again would cost it what is measured.
    let pid = host.pid();
    let all = children + MANY as usize - 1;
    host.namespaces().wait_for("all containers", |_| Ok((children_of(pid)? >= all).then_some(())))?;
    host.namespaces().wait_for("all containers to run", |it| Ok((running(it)? == MANY as usize).then_some(())))?;
    let took = began.elapsed();
    let most = userland_of(host)?;
    let mut times = Vec::new();
    for _ in 0..9 {
        times.push(time(host.command(&["/usr/bin/berth", "ps"]))?);
    }
    let each = most.saturating_sub(least) / u64::from(MANY - 1);
    let rate = f64::from(MANY) / took.as_secs_f64();
    let library = library::rate(workspace)?;
    Ok(vec![
        Figure::new(format!("{MANY} containers run after"), milliseconds(took)),
        Figure::new("  a second", format!("{rate:.0}")),
        Figure::new("  a second, the bare library one after the other", format!("{library:.0}")),
        Figure::new("  ratio of the two", format!("{:.2}", rate / library)).at_least(0.7),
        Figure::new("listing them", milliseconds(median(&times).context("no time")?)).at_most(50.0),
        Figure::new("userland of each further one, berth, PSS", format!("{each} KiB")).at_most(64.0),
    ])
}

fn children_of(pid: u32) -> Result<usize> {
    Ok(fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.split_whitespace().count())
}

fn apply(host: &Host, configuration: &str) -> Result<()> {
    let path = format!("/proc/{}/root/run/berth.toml", host.pid());
    fs::write(path, configuration)?;
    host.berth(&["apply", "/run/berth.toml"]).map(drop)
}

fn running(namespaces: &Namespaces) -> Result<usize> {
    let names = berth(namespaces, &["ps", "--quiet", "--filter", "status=running"])?;
    Ok(names.lines().filter(|name| name.starts_with('a')).count())
}

/// Of PID 1 and the system containers, in KiB.
fn userland_of(host: &Host) -> Result<u64> {
    let mut all = vec![host.pid()];
    for name in SYSTEM_CONTAINERS {
        all.push(host.service(name)?);
    }
    Ok(all.into_iter().filter_map(proportional).sum())
}

/// The proportional set size in KiB.
fn proportional(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn processes_named(name: &str) -> Result<Vec<u32>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse::<u32>().ok()) else { continue };
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
            found.insert(pid, ());
        }
    }
    Ok(found.into_keys().collect())
}
