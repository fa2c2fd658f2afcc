//! Image archives that are wrong in one way or another: the container says so, everything else runs.

use anyhow::{Context, Result, ensure};
use tar::EntryType;

use crate::archive::{Layer, compressed_by};
use crate::bench::Bench;
use crate::disks::Files;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "archives/malicious", memory: 256, run: malicious },
    Case { name: "archives/broken", memory: 256, run: broken },
    Case { name: "archives/the-same-twice", memory: 256, run: same_twice },
    Case { name: "archives/two-of-one-name", memory: 256, run: two_of_one_name },
    Case { name: "archives/layers", memory: 256, run: layers },
    Case { name: "archives/forms", memory: 256, run: forms },
];

const REPORT: &str = "echo reported > /report; exec sleep 100000";

/// A layer that tries to leave its root.
type Attack = (&'static str, fn() -> Layer);

/// By their names: refused.
const BY_NAME: [Attack; 3] = [
    ("dots", || Layer::new().file("../../../../../../../tmp/berth-escape", 0o644, b"x")),
    ("inner-dots", || Layer::new().folder("a").file("a/../../../../../../tmp/berth-escape", 0o644, b"x")),
    ("hard-link", || Layer::new().hard_link("shadow", "../../../../../../../etc/passwd")),
];

/// Through links, which lead where they do for a process whose root the image is.
const THROUGH_LINKS: [Attack; 4] = [
    ("absolute", || Layer::new().symbolic_link("out", "/").file("/out/tmp/berth-escape", 0o644, b"x")),
    ("symbolic-link", || Layer::new().symbolic_link("out", "/tmp").file("out/berth-escape", 0o644, b"x")),
    ("relative-link", || Layer::new().symbolic_link("out", "../../../../../tmp").file("out/berth-escape", 0o644, b"x")),
    ("link-through-link", || Layer::new().symbolic_link("out", "/etc").hard_link("shadow", "out/passwd")),
];

fn malicious(bench: &Bench) -> Result<()> {
    let mut configuration = "[containers.good]\nimage = \"localhost/good:1\"\n".to_owned();
    let mut files =
        Files::new().with("images/good.tar", bench.shell_image("localhost/good:1", REPORT)?.docker_archive());
    for (name, layer) in BY_NAME.into_iter().chain(THROUGH_LINKS) {
        let image = format!("localhost/{name}:1");
        configuration.push_str(&format!("[containers.{name}]\nimage = \"{image}\"\n"));
        let archive = bench.shell_image(&image, REPORT)?.layer(layer()).docker_archive();
        files = files.with(&format!("images/{name}.tar"), archive);
    }
    let mut machine = bench.machine().user_data(&files.with("berth.toml", configuration))?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    ensure!(machine.guest.read_in("good", "/report")?.trim() == "reported", "the good container does not run");
    for (name, _) in BY_NAME {
        let container = machine.guest.container(name)?;
        let reason = container["reason"].as_str().unwrap_or_default();
        ensure!(container["state"] == "failed" && !reason.is_empty(), "{name}: {container}");
    }
    for (name, _) in THROUGH_LINKS.into_iter().take(3) {
        ensure!(machine.guest.read_in(name, "/tmp/berth-escape")? == "x", "{name} has not what its layer says");
    }
    let own = machine.guest.read_in("link-through-link", "/etc/passwd")?;
    ensure!(machine.guest.read_in("link-through-link", "/shadow")? == own, "a link to another file than the image's");
    let of_machine = machine.guest.read("/etc/passwd")?;
    ensure!(own != of_machine, "a hard link to a file of the machine");
    let escaped = machine.guest.shell("for i in / /var /tmp /run; do find $i -xdev -name berth-escape; done")?;
    ensure!(escaped.is_empty(), "outside of its root: {escaped}");
    Ok(())
}

fn broken(bench: &Bench) -> Result<()> {
    let good = bench.shell_image("localhost/good:1", REPORT)?.docker_archive();
    let cut = bench.shell_image("localhost/cut:1", REPORT)?.docker_archive();
    let cut = cut.get(..cut.len() / 2).unwrap_or_default().to_vec();
    // A byte of a layer that no other image has: the digest does not match any more.
    let own = Layer::new().file("own", 0o644, b"as it was packed");
    let mut forged = bench.shell_image("localhost/forged:1", REPORT)?.layer(own).docker_archive();
    let at = forged.windows(16).position(|bytes| bytes == b"as it was packed").context("the file in the archive")?;
    forged.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0xff);
    let names = ["good", "cut", "forged", "nonsense", "empty", "missing"];
    let configuration: String =
        names.iter().map(|name| format!("[containers.{name}]\nimage = \"localhost/{name}:1\"\n")).collect();
    let files = Files::new()
        .with("berth.toml", configuration)
        .with("images/good.tar", good)
        .with("images/cut.tar", cut)
        .with("images/forged.tar", forged)
        .with("images/nonsense.tar", vec![0x5a; 100_000])
        .with("images/nonsense.tar.gz", b"\x1f\x8b\x08nonsense".to_vec())
        .with("images/empty.tar", Vec::new());
    let mut machine = bench.machine().user_data(&files)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    ensure!(machine.guest.read_in("good", "/report")?.trim() == "reported", "the good container does not run");
    for name in names.iter().skip(1) {
        let container = machine.guest.container(name)?;
        ensure!(container["state"] == "failed" && container["reason"] != "", "{name}: {container}");
    }
    Ok(())
}

fn same_twice(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", REPORT)?.docker_archive();
    let files = Files::new()
        .with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n")
        .with("images/a.tar", archive.clone())
        .with("images/b.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    ensure!(machine.guest.read_in("a", "/report")?.trim() == "reported", "the container does not run");
    let copies = machine.guest.shell("find /var/lib/berth/images/layers -type f | wc -l")?;
    ensure!(copies.trim() == "1", "the same layer was unpacked {} times", copies.trim());
    Ok(())
}

/// Which of the two is meant cannot be known; it must be the same one at every boot, and the machine must say so.
fn two_of_one_name(bench: &Bench) -> Result<()> {
    let first = bench.shell_image("localhost/a:1", "echo first > /dev/shm/report; exec sleep 100000")?.docker_archive();
    let second =
        bench.shell_image("localhost/a:1", "echo second > /dev/shm/report; exec sleep 100000")?.docker_archive();
    let files = Files::new()
        .with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n")
        .with("images/1.tar", first)
        .with("images/2.tar", second);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    let chosen = machine.guest.read_in("a", "/dev/shm/report")?;
    machine.reboot()?;
    let again = machine.guest.read_in("a", "/dev/shm/report")?;
    ensure!(chosen == again, "first {chosen:?}, then {again:?}");
    Ok(())
}

/// What a later layer does to an earlier one: replace, remove, hide a folder's content.
fn layers(bench: &Bench) -> Result<()> {
    let script = "{ cat /data/replaced; ls /data /opaque; readlink /data/link; stat -c '%h %a' /data/hard; ls -l /dev0; } \
                  > /tmp/report 2>&1; echo done > /tmp/done; exec sleep 100000";
    let base = Layer::new()
        .folder("data")
        .file("data/replaced", 0o644, b"old\n")
        .file("data/removed", 0o644, b"old\n")
        .file("data/hard", 0o640, b"x")
        .hard_link("data/harder", "data/hard")
        .symbolic_link("data/link", "/nowhere")
        .folder("opaque")
        .file("opaque/hidden", 0o644, b"old\n")
        .entry("dev0", EntryType::Fifo, 0o600, "", &[]);
    let top = Layer::new()
        .file("data/replaced", 0o644, b"new\n")
        .file("data/.wh.removed", 0o000, b"")
        .folder("opaque")
        .file("opaque/.wh..wh..opq", 0o000, b"")
        .file("opaque/shown", 0o644, b"new\n");
    let archive = bench.shell_image("localhost/a:1", script)?.layer(base).layer(top).docker_archive();
    let files =
        Files::new().with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n").with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/tmp/done")?;
    let report = machine.guest.read_in("a", "/tmp/report")?;
    let lines: Vec<&str> = report.lines().collect();
    let expected =
        ["new", "/data:", "hard", "harder", "link", "replaced", "", "/opaque:", "shown", "/nowhere", "2 640"];
    ensure!(lines.get(..expected.len()) == Some(&expected), "{report}");
    ensure!(lines.last().is_some_and(|line| line.starts_with("prw-------")), "{report}");
    Ok(())
}

/// Archives as people have them: compressed by whatever they know, and layouts as other tools leave them. Whoever has no
/// name goes by a digest.
fn forms(bench: &Bench) -> Result<()> {
    let image = |name: &str| -> Result<_> {
        let own = Layer::new().file("own", 0o644, name.as_bytes());
        Ok(bench.shell_image(&format!("localhost/{name}:1"), REPORT)?.layer(own))
    };
    let configuration: String =
        ["a", "b", "c"].map(|name| format!("[containers.{name}]\nimage = \"localhost/{name}:1\"\n")).concat();
    let files = Files::new()
        .with("berth.toml", configuration)
        .with("images/a.tar.xz", compressed_by("xz", &image("a")?.docker_archive())?)
        .with("images/b.tbz2", compressed_by("bzip2", &image("b")?.oci_archive()?)?)
        .with_all("images/c", &image("c")?.oci_archive()?)?
        .with_all("other/d", &image("d")?.oci_archive()?)?;
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for name in ["a", "b", "c"] {
        ensure!(machine.guest.read_in(name, "/report")?.trim() == "reported", "{name} does not run");
    }
    let imported = machine.guest.shell("berth import /run/berth/user-data/other/d")?;
    ensure!(imported.contains("localhost/d:1 sha256:"), "{imported}");
    // By what `berth images` shows of its digest.
    let short = "$(berth images | grep /d:1 | grep -o 'sha256:[0-9a-f]*')";
    let shown =
        machine.guest.shell(&format!("berth image inspect {short} | grep -c localhost/d:1; berth rmi {short}"))?;
    ensure!(shown.starts_with('1') && !machine.guest.shell("berth images -q")?.contains("/d:1"), "{shown}");
    // A path of the machine has the machine's ids, unless they are to be the container's.
    let owner = |options: &str| {
        let volume = format!("/run/berth/user-data/berth.toml:/x:ro{options}");
        format!("berth run --rm -v {volume} localhost/a:1 stat -c %u /x")
    };
    let owners = machine.guest.shell(&format!("{}; {}", owner(""), owner(",idmap")))?;
    ensure!(owners.split_whitespace().eq(["65534", "0"]), "{owners}");
    Ok(())
}
