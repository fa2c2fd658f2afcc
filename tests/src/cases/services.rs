//! Real services, made of Debian's packages, doing what they are for: a page, a key, a query; and what they keep in a
//! volume outlives the container.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::page;
use crate::registry::Registry;
use crate::runner::Case;
use crate::services::Service;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "services/nginx", memory: 384, run: nginx },
    Case { name: "services/redis-from-a-registry", memory: 384, run: redis },
    Case { name: "services/postgresql", memory: 512, run: postgresql },
];

/// Enough for the largest image, unpacked and packed, and for a database, in bytes.
const DISK: u64 = 1 << 30;

/// How long PostgreSQL may need to make its first database on emulated processors.
const LONGEST_FIRST_START: Duration = Duration::from_secs(600);

fn start(bench: &Bench, service: Service, configuration: &str, memory: u32, port: u16) -> Result<Machine> {
    let archive = service.archive()?;
    let archive = std::fs::read(&archive).with_context(|| format!("read {}", archive.display()))?;
    let files = Files::new().with("berth.toml", configuration).with("images/service.tar", archive);
    let machine = bench.machine().memory(memory).disk_size(DISK).user_data(&files)?.forward(port).start()?;
    machine.wait_until_ready()?;
    Ok(machine)
}

/// Has the container `service` made anew by one more variable of its environment.
fn recreate(machine: &mut Machine, configuration: &str) -> Result<()> {
    machine.guest.write("/run/new.toml", &format!("{configuration}environment.AGAIN = \"1\"\n"))?;
    let said = machine.guest.shell("berth apply /run/new.toml")?;
    ensure!(said.contains("container service is made anew"), "{said}");
    machine.guest.shell("until berth exec service sh -c '[ \"$AGAIN\" = 1 ]'; do :; done").map(drop)
}

fn nginx(bench: &Bench) -> Result<()> {
    let configuration = "[containers.service]\nimage = \"localhost/nginx:1\"\nports = [\"8080:80\"]\n\
                         volumes = [\"pages:/usr/share/nginx/html\"]\n";
    let mut machine = start(bench, Service::Nginx, configuration, 384, 8080)?;
    let address = machine.forwarded(8080)?;
    let welcome = page::fetch(address, "/", wait::ANSWER)?;
    ensure!(welcome.contains("<title>Welcome to nginx!</title>"), "{welcome}");
    // Its log is a link to /dev/stdout, which it opens itself.
    machine.guest.shell("until berth logs service | grep -q 'GET / HTTP/1.0'; do :; done")?;
    let write = "berth exec service sh -c 'echo kept > /usr/share/nginx/html/kept.txt'";
    machine.guest.shell(write)?;
    recreate(&mut machine, configuration)?;
    ensure!(page::fetch(address, "/kept.txt", wait::ANSWER)? == "kept\n", "the volume has lost a page");
    // StopSignal: SIGQUIT lets nginx end by itself.
    machine.guest.shell("berth stop service")?;
    let stopped = machine.guest.wait_for_state("service", "stopped")?;
    ensure!(stopped["exit_code"] == 0, "{stopped}");
    machine.guest.shell("until berth logs service 2>&1 | grep -q 'gracefully shutting down'; do :; done").map(drop)
}

fn redis(bench: &Bench) -> Result<()> {
    let archive = Service::Redis.archive()?;
    let registry = Registry::start()?;
    registry.push_layout(&archive, "debian/redis:7")?;
    let name = registry.name();
    let configuration = format!(
        "[registries.\"{name}\"]\nplain_http = true\n[containers.service]\nimage = \"{name}/debian/redis:7\"\n\
         command = \"redis-server --protected-mode no --appendonly yes\"\nports = [\"6379:6379\"]\nvolumes = [\"keys:/data\"]\n"
    );
    let files = Files::new().with("berth.toml", configuration.clone());
    let mut machine = bench.machine().memory(384).disk_size(DISK).user_data(&files)?.forward(6379).start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_state("service", "running")?;
    let address = machine.forwarded(6379)?;
    machine.guest.shell("until berth exec service redis-cli ping | grep -q PONG; do :; done")?;
    ensure!(ask(address, "SET greeting ahoy\r\n", "+OK\r\n".len())? == "+OK\r\n", "redis does not take a key");
    let owner = machine.guest.shell("berth exec service stat -c %U /data /data/appendonlydir")?;
    ensure!(owner == "redis\nredis\n", "the volume belongs to {owner}");
    recreate(&mut machine, &configuration)?;
    machine.guest.shell("until berth exec service redis-cli ping | grep -q PONG; do :; done")?;
    let kept = ask(address, "GET greeting\r\n", "$4\r\nahoy\r\n".len())?;
    ensure!(kept == "$4\r\nahoy\r\n", "redis has lost the key: {kept:?}");
    machine.guest.shell("berth stop service")?;
    let stopped = machine.guest.wait_for_state("service", "stopped")?;
    ensure!(stopped["exit_code"] == 0, "{stopped}");
    Ok(())
}

/// The first `length` bytes of the answer to `request`.
fn ask(address: SocketAddr, request: &str, length: usize) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, wait::ANSWER)?;
    stream.set_read_timeout(Some(wait::ANSWER))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).with_context(|| format!("read the answer to {request:?}"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn postgresql(bench: &Bench) -> Result<()> {
    let configuration = "[containers.service]\nimage = \"localhost/postgresql:1\"\nshm_size = \"128M\"\n\
                         volumes = [\"data:/var/lib/postgresql/data\"]\nstop_grace_period = \"60s\"\n\
                         environment.POSTGRES_PASSWORD = \"secret\"\n";
    let mut machine = start(bench, Service::Postgresql, configuration, 512, 5432)?;
    // It is asked only when it listens: until then initdb needs the processors. A pipe with a name, because what follows
    // the log of a server that has nothing more to say would not notice that nobody reads any longer.
    let listening = "rm -f /run/lines; mkfifo /run/lines; berth logs --follow service > /run/lines 2>&1 &
        grep -q 'listening on IPv4 address' < /run/lines; kill $!";
    let until_ready = format!(
        "{listening}; until berth exec service pg_isready -q -h 127.0.0.1 -U postgres; do [ $? -le 2 ] || exit; done"
    );
    let wait_until_ready = |machine: &mut Machine| -> Result<()> {
        let ready = machine.guest.run_within(&["/bin/sh", "-c", &until_ready], LONGEST_FIRST_START)?;
        ensure!(ready.code == 0, "{ready:?}");
        Ok(())
    };
    let query = |sql: &str| format!("berth exec service psql -At -v ON_ERROR_STOP=1 -U postgres -c \"{sql}\"");
    wait_until_ready(&mut machine)?;
    machine.guest.shell(&query("CREATE TABLE ships (name text); INSERT INTO ships VALUES ('Vasa'), ('Fram')"))?;
    // Two processes and the memory that they share, in /dev/shm.
    let parallel = "SET force_parallel_mode = on; SELECT count(*) FROM ships";
    ensure!(machine.guest.shell(&query(parallel))?.ends_with("2\n"), "a query of two processes fails");
    // Over the network with the password, which goes another way than the socket.
    let password = "berth exec -e PGPASSWORD=secret service psql -At -h 127.0.0.1 -U postgres -c 'SELECT 6 * 7'";
    ensure!(machine.guest.shell(password)? == "42\n", "no answer to a password");
    recreate(&mut machine, configuration)?;
    wait_until_ready(&mut machine)?;
    let kept = machine.guest.shell(&query("SELECT name FROM ships ORDER BY name"))?;
    ensure!(kept == "Fram\nVasa\n", "the database has lost rows: {kept:?}");
    let logs = machine.guest.shell("berth logs service 2>&1")?;
    // StopSignal: SIGINT is its fast shutdown, and no log had to be replayed.
    ensure!(logs.contains("received fast shutdown request") && !logs.contains("not properly shut down"), "{logs}");
    Ok(())
}
