//! Images from a registry: docker-registry on this host, which machines reach over QEMU's user network.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::page;
use crate::registry::Registry;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "registry/declared-image-is-pulled", memory: 256, run: declared },
    Case { name: "registry/image-comes-later", memory: 256, run: later },
];

const PAGE: &str = "<h1>A page from a registry</h1>\n";

fn configuration(registry: &Registry) -> String {
    let name = registry.name();
    let container = format!("[containers.web]\nimage = \"{name}/demo/web:1\"\nports = [\"8080:80\"]\n");
    format!("[registries.\"{name}\"]\nplain_http = true\n{container}")
}

fn declared(bench: &Bench) -> Result<()> {
    let registry = Registry::start()?;
    registry.push(&bench.web_image("localhost/web:1", PAGE)?.docker_archive(), "demo/web:1")?;
    let files = Files::new().with("berth.toml", configuration(&registry));
    let mut machine = bench.machine().user_data(&files)?.forward(8080).start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_state("web", "running")?;
    let address = machine.forwarded(8080)?;
    ensure!(page::fetch(address, "/", wait::ANSWER)? == PAGE, "the page is another one");

    let pull = |image: &str| ["/usr/bin/berth".to_owned(), "pull".to_owned(), format!("{}/{image}", registry.name())];
    let again = pull("demo/web:1");
    let again = machine.guest.run(&again.each_ref().map(String::as_str))?;
    ensure!(again.code == 0 && again.stdout.contains("/demo/web:1 sha256:"), "{again:?}");
    let none = pull("demo/none:1");
    let none = machine.guest.run(&none.each_ref().map(String::as_str))?;
    ensure!(none.code == 1 && none.stderr.contains("manifest unknown"), "{none:?}");
    Ok(())
}

fn later(bench: &Bench) -> Result<()> {
    let registry = Registry::start()?;
    let files = Files::new().with("berth.toml", configuration(&registry));
    let mut machine = bench.machine().user_data(&files)?.forward(8080).start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong: {line}");
    let web = machine.guest.container("web")?;
    ensure!(web["state"] == "preparing", "{web}");
    let why = machine.guest.run(&["/usr/bin/berth", "why", "web"])?;
    ensure!(why.stdout.contains("cannot be pulled") && why.stdout.contains("next try in"), "{why:?}");
    registry.push(&bench.web_image("localhost/web:1", PAGE)?.docker_archive(), "demo/web:1")?;
    machine.guest.wait_for_state("web", "running")?;
    let address = machine.forwarded(8080)?;
    ensure!(page::fetch(address, "/", wait::ANSWER)? == PAGE, "the page is another one");
    Ok(())
}
