//! User containers run, and are reached.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::archive;
use crate::bench::{Bench, skip};
use crate::disks::{self, Files, Format};
use crate::page;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "containers/page-of-a-docker-archive", memory: 256, run: docker_archive },
    Case { name: "containers/page-of-an-oci-archive", memory: 256, run: oci_archive },
    Case { name: "containers/compressed-archives", memory: 256, run: compressed_archives },
    Case { name: "containers/page-within-96-mib", memory: 96, run: little_memory },
    Case { name: "containers/user-data-on-ext4", memory: 256, run: |bench| other_user_data(bench, Format::Ext4) },
    Case { name: "containers/user-data-on-iso", memory: 256, run: |bench| other_user_data(bench, Format::Iso) },
    Case { name: "containers/restart-policy", memory: 256, run: restart_policy },
    Case { name: "containers/memory-limit", memory: 256, run: memory_limit },
];

const PAGE: &str = "<h1>A page from a container</h1>\n";

const WEB: &str = "[containers.web]\nimage = \"localhost/web:1\"\nports = [\"8080:80\"]\n";

fn docker_archive(bench: &Bench) -> Result<()> {
    let archive = bench.web_image("localhost/web:1", PAGE)?.docker_archive();
    serves(bench, &Files::new().with("berth.toml", WEB).with("images/web.tar", archive), 256)
}

fn oci_archive(bench: &Bench) -> Result<()> {
    let archive = bench.web_image("localhost/web:1", PAGE)?.oci_archive()?;
    serves(bench, &Files::new().with("berth.toml", WEB).with("images/web.tar", archive), 256)
}

fn little_memory(bench: &Bench) -> Result<()> {
    let archive = bench.web_image("localhost/web:1", PAGE)?.docker_archive();
    serves(bench, &Files::new().with("berth.toml", WEB).with("images/web.tar", archive), 96)
}

fn serves(bench: &Bench, files: &Files, memory: u32) -> Result<()> {
    let mut machine = bench.machine().memory(memory).user_data(files)?.forward(8080).start()?;
    machine.wait_until_ready()?;
    let address = machine.forwarded(8080)?;
    ensure!(page::fetch(address, "/", wait::ANSWER)? == PAGE, "the page is another one");
    let web = machine.guest.container("web")?;
    ensure!(web["state"] == "running" && web["restarts"] == 0, "{web}");
    Ok(())
}

fn compressed_archives(bench: &Bench) -> Result<()> {
    let report = "echo reported > /report; exec sleep 100000";
    let first = bench.shell_image("localhost/first:1", report)?.docker_archive();
    let second = bench.shell_image("localhost/second:1", report)?.docker_archive();
    let files = Files::new()
        .with("berth.toml", "containers.a.image = \"localhost/first:1\"\ncontainers.b.image = \"localhost/second:1\"\n")
        .with("images/first.tar.gz", archive::gzip(&first)?)
        .with("images/second.tar.zst", archive::zstd(&second)?);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for name in ["a", "b"] {
        ensure!(machine.guest.read_in(name, "/report")?.trim() == "reported", "{name} did not report");
    }
    Ok(())
}

fn other_user_data(bench: &Bench, format: Format) -> Result<()> {
    if format == Format::Iso && disks::iso_tool().is_none() {
        return Err(skip("neither xorriso nor genisoimage is installed"));
    }
    let archive = bench.shell_image("localhost/a:1", "echo reported > /report; exec sleep 100000")?.docker_archive();
    let files = Files::new()
        .with("berth.toml", "hostname = \"from-a-disk\"\n")
        .with("config.d/10-a.toml", "[containers.a]\nimage = \"localhost/a:1\"\n")
        .with("images/a.tar", archive);
    let mut machine = bench.machine().user_data_as(&files, format)?.start()?;
    machine.wait_until_ready()?;
    ensure!(machine.guest.request("guest-get-host-name", json!({}))?["host-name"] == "from-a-disk", "the host name");
    ensure!(machine.guest.read_in("a", "/report")?.trim() == "reported", "the container did not report");
    Ok(())
}

fn restart_policy(bench: &Bench) -> Result<()> {
    let counts = "echo started >> /var/count/runs; exit 3";
    let archive = bench.shell_image("localhost/a:1", counts)?.docker_archive();
    let configuration = "
        [containers.always]
        image = \"localhost/a:1\"
        restart = \"always\"
        volumes = [\"always:/var/count\"]
        [containers.once]
        image = \"localhost/a:1\"
        restart = \"no\"
        volumes = [\"once:/var/count\"]
    ";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    // What was not to be restarted and did not end well has failed, and says how.
    let once = machine.guest.wait_for_state("once", "failed")?;
    ensure!(once["reason"].as_str().is_some_and(|reason| reason.contains("code 3")), "{once}");
    ensure!(once["exit_code"] == 3 && once["restarts"] == 0, "{once}");
    machine.guest.shell("until [ $(wc -l < /var/lib/berth/volumes/always/runs) -ge 3 ]; do usleep 200000; done")?;
    let always = machine.guest.container("always")?;
    ensure!(always["restarts"].as_u64() >= Some(2) && always["exit_code"] == 3, "{always}");
    Ok(())
}

fn memory_limit(bench: &Bench) -> Result<()> {
    let hungry =
        bench.image("localhost/hungry:1", &["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1"])?;
    let web = bench.web_image("localhost/web:1", PAGE)?;
    let configuration =
        format!("{WEB}\n[containers.hungry]\nimage = \"localhost/hungry:1\"\nmemory = \"32M\"\nrestart = \"no\"\n");
    let files = Files::new()
        .with("berth.toml", configuration)
        .with("images/hungry.tar", hungry.docker_archive())
        .with("images/web.tar", web.docker_archive());
    let mut machine = bench.machine().user_data(&files)?.forward(8080).start()?;
    machine.wait_until_settled()?;
    // What ends by its own limit is not going to run again by itself.
    let deadline = std::time::Instant::now() + wait::ANSWER;
    let hungry = loop {
        let hungry = machine.guest.container("hungry")?;
        if hungry["exit_code"] != -1 {
            break hungry;
        }
        ensure!(std::time::Instant::now() < deadline, "the container was not killed: {hungry}");
    };
    ensure!(hungry["exit_code"] == 137, "{hungry}");
    ensure!(hungry["reason"].as_str().is_some_and(|reason| reason.contains("memory")), "the reason: {hungry}");
    let address = machine.forwarded(8080)?;
    ensure!(page::fetch(address, "/", wait::ANSWER)? == PAGE, "the other container does not serve");
    Ok(())
}
