//! Images from a registry: docker-registry on this host, which machines reach over QEMU's user network.

use anyhow::{Result, ensure};

use crate::archive::Layer;
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
    Case { name: "registry/images-and-volumes-by-hand", memory: 256, run: by_hand },
    Case { name: "registry/cut-off-while-pulling", memory: 256, run: cut_off },
    Case { name: "registry/cut-off-after-a-pull", memory: 256, run: cut_off_after },
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
    ensure!(again.stderr.is_empty(), "how far it is goes to a terminal alone: {again:?}");
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

/// A machine that loses its power between two layers of an image has the whole image in the end, and the layers of before
/// only if they are sound.
fn cut_off(bench: &Bench) -> Result<()> {
    const LAYERS: u8 = 8;
    let registry = Registry::start()?;
    let mut image = bench.web_image("localhost/web:1", PAGE)?;
    for number in 0..LAYERS {
        // What no method makes shorter.
        let mut state = u64::from(number) + 1;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(2 << 20).collect();
        image = image.layer(Layer::new().file(&format!("noise{number}"), 0o644, &noise));
    }
    registry.push(&image.docker_archive(), "demo/web:1")?;
    let files = Files::new().with("berth.toml", configuration(&registry));
    let mut machine = bench.machine().disk_size(512 << 20).user_data(&files)?.forward(8080).start()?;
    let mut mark = machine.console.mark();
    for there in [1, 4] {
        machine.guest.wait()?;
        let count = "ls /var/lib/berth/images/layers/sha256 | wc -l";
        machine.guest.shell(&format!("until [ $({count}) -ge {there} ]; do :; done"))?;
        let pulled = machine.guest.shell("berth images -q")?;
        ensure!(pulled.is_empty(), "it was pulled before it could be cut off: {pulled}");
        machine.qmp.reset()?;
        machine.qmp.wait_for_event("RESET", wait::ANSWER)?;
        mark = machine.console.mark();
    }
    let line = machine.wait_until_settled_after(mark)?;
    ensure!(line.contains("ready"), "{line}");
    machine.guest.wait()?;
    let address = machine.forwarded(8080)?;
    ensure!(page::fetch(address, "/", wait::ANSWER)? == PAGE, "the page is another one");
    let sums =
        machine.guest.shell("berth exec web sh -c 'cat /noise* | wc -c'; find /var/lib/berth/images/tmp -type f")?;
    ensure!(sums.trim() == (usize::from(LAYERS) * (2 << 20)).to_string(), "{sums}");
    Ok(())
}

/// What `berth pull` has said to be there is there, whatever happens to the power a moment later.
fn cut_off_after(bench: &Bench) -> Result<()> {
    let registry = Registry::start()?;
    let name = registry.name();
    let layer = Layer::new().file("own", 0o644, b"of the image\n");
    let image = bench.shell_image("localhost/a:1", "exec sleep 100000")?.layer(layer);
    registry.push(&image.docker_archive(), "demo/a:1")?;
    let configuration = format!("[registries.\"{name}\"]\nplain_http = true\n");
    let files = Files::new().with("berth.toml", configuration);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.shell(&format!("berth pull {name}/demo/a:1"))?;
    machine.qmp.reset()?;
    machine.qmp.wait_for_event("RESET", wait::ANSWER)?;
    let mark = machine.console.mark();
    // From here on nobody can be asked for it.
    drop(registry);
    let line = machine.wait_until_settled_after(mark)?;
    ensure!(line.contains("ready"), "{line}");
    machine.guest.wait()?;
    ensure_says(&machine.guest.shell("berth images")?, &format!("{name}/demo/a"))?;
    ensure_says(&machine.guest.shell(&format!("berth run --rm {name}/demo/a:1 cat /own"))?, "of the image")
}

/// What a person does with images and volumes who knows docker.
fn by_hand(bench: &Bench) -> Result<()> {
    let registry = Registry::start()?;
    let name = registry.name();
    let layer = Layer::new().file("own", 0o644, b"of the image\n");
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.layer(layer).docker_archive();
    let configuration = format!("[registries.\"{name}\"]\nplain_http = true\n");
    let files = Files::new().with("berth.toml", configuration).with("archives/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let mut shell = |command: &str| machine.guest.shell(&command.replace("REGISTRY", &name));

    ensure_says(&shell("berth import /run/berth/user-data/archives/a.tar")?, "localhost/a:1")?;
    ensure_says(&shell("echo secret | berth login -u me --password-stdin REGISTRY")?, "me is logged in to")?;
    shell("berth tag localhost/a:1 REGISTRY/demo/a:1 && berth push REGISTRY/demo/a:1")?;
    shell("berth logout REGISTRY")?;
    ensure_says(&shell("berth logout REGISTRY 2>&1; echo code $?")?, "code 1")?;
    shell("berth save --output /run/a.tar localhost/a:1")?;
    shell("berth rmi localhost/a:1 REGISTRY/demo/a:1")?;
    ensure_says(&shell("berth rmi localhost/a:1 2>&1; echo code $?")?, "code 1")?;
    ensure!(shell("berth images -q")?.is_empty(), "an image is left");

    ensure_says(&shell("berth run --rm REGISTRY/demo/a:1 cat /own")?, "of the image")?;
    shell("berth prune --all --force")?;
    ensure!(shell("berth images -q")?.is_empty(), "an image is left that nothing needs");
    ensure_says(&shell("berth import < /run/a.tar && berth run --rm localhost/a:1 cat /own")?, "of the image")?;

    ensure_says(&shell("berth volume create --opt size=4m data")?, "data")?;
    let in_it = "berth run --rm -v data:/data localhost/a:1";
    shell(&format!("{in_it} sh -c 'echo kept > /data/file'"))?;
    ensure_says(&shell(&format!("{in_it} cat /data/file"))?, "kept")?;
    ensure_says(
        &shell(&format!("{in_it} dd if=/dev/zero of=/data/large bs=1M count=8 2>&1; echo code $?"))?,
        "code 1",
    )?;
    shell("berth run -d --name user -v data:/data localhost/a:1")?;
    let refused = shell("berth volume rm data 2>&1; echo code $?")?;
    ensure_says(&refused, "user")?;
    ensure_says(&refused, "code 1")?;
    ensure_says(&shell("berth rmi localhost/a:1 2>&1; echo code $?")?, "code 1")?;
    shell("berth rm -f user && berth volume rm data")?;
    ensure!(shell("berth volume ls -q")?.is_empty(), "a volume is left");
    Ok(())
}

fn ensure_says(said: &str, wanted: &str) -> Result<()> {
    ensure!(said.contains(wanted), "{wanted:?} is not in {said:?}");
    Ok(())
}
