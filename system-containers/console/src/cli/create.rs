//! What `berth run` and `berth create` make: flags as docker's, on top of what a configuration says of a container.

mod attachment;
mod health;
mod image;
mod mounts;
mod network;
mod processors;
mod publish;
mod security;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;
use std::path::PathBuf;

use berth_config::{
    AbsolutePath, Command, Configuration, Container, ContainerName, Device, Group, HostName, ImageName, IpcMode,
    OomScore, PidMode, PublishedPorts, RestartPolicy, Signal, Size, TimeSpan, User,
};
use berth_control::dbus::{ApiError, Creation};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{exec, json_text, terminal};

/// A container.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of the one that it is a part of
pub struct Arguments {
    /// Its name; one is made up if there is none
    #[arg(long)]
    name: Option<ContainerName>,
    /// Remove it when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Keep its standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Make a terminal for it
    #[arg(short, long)]
    pub tty: bool,
    /// Make a small init its first process, which forwards signals and collects orphans
    #[arg(long)]
    init: bool,
    /// A variable; without `=VALUE`, this command's own
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    environment: Vec<String>,
    /// A file with variables, one a line
    #[arg(long = "env-file", value_name = "FILE")]
    environment_files: Vec<PathBuf>,
    #[command(flatten)]
    mounts: mounts::Arguments,
    #[command(flatten)]
    network: network::Arguments,
    /// With whom it shares memory and message queues: private, shareable or container:NAME
    #[arg(long, default_value_t)]
    ipc: IpcMode,
    /// Whose processes it sees: private or container:NAME
    #[arg(long, default_value_t)]
    pid: PidMode,
    /// Its host name; its own name if there is none
    #[arg(short = 'h', long)]
    hostname: Option<HostName>,
    /// Where its program starts
    #[arg(short = 'w', long = "workdir", value_name = "PATH")]
    directory: Option<AbsolutePath>,
    /// Who its program runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<User>,
    /// A further group of its program, by its name in the image or by number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<Group>,
    /// The program, in place of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The most memory it may use
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<Size>,
    /// The most that it may write to its root file system
    #[arg(long, value_name = "SIZE")]
    storage: Option<Size>,
    /// How much memory it keeps when others want more
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<Size>,
    /// How soon it is ended when the machine runs out of memory: 0, as late as the machine's own, to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<OomScore>,
    #[command(flatten)]
    processors: processors::Arguments,
    /// The most processes and threads it may have
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<NonZeroU32>,
    /// Whether it is started again: no, on-failure[:N], always or unless-stopped
    #[arg(long, default_value = "no")]
    restart: RestartPolicy,
    /// What asks its program to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// How long it may take to end before it is killed, in seconds
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// A device node of the machine
    #[arg(long, value_name = "DEVICE[:PATH[:rwm]]")]
    device: Vec<Device>,
    /// A limit of each of its processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// A kernel setting of its own namespaces
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<Size>,
    #[command(flatten)]
    health: health::Arguments,
    /// Let it write nothing to its root
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    security: security::Arguments,
    /// Free text for tools
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// A file with such, one a line
    #[arg(long = "label-file", value_name = "FILE")]
    label_files: Vec<PathBuf>,
    /// When the image is brought from its registry: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: image::Pull,
    /// Show nothing of that
    #[arg(short, long)]
    quiet: bool,
    /// Taken if it is this machine's, such as linux/amd64
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = image::platform)]
    platform: Option<String>,
    /// Which streams this command has: stdout and stderr, and with -i stdin
    #[arg(short, long, value_name = "STREAM", value_parser = attachment::stream)]
    attach: Vec<attachment::Stream>,
    /// Write its name, which is its ID, to a file that is not there yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print help; -h is the host name, as it is docker's
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image; behind it the program and its arguments, or arguments for the image's
    // One argument: what stands behind the image is never a flag of ours, as with docker's.
    #[arg(required = true, trailing_var_arg = true, num_args = 1.., value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
}

/// Makes it, and prints its name.
pub async fn run(api: &Api, arguments: Arguments, json: bool) -> Result<String, Error> {
    let new = New::of(arguments)?;
    let (name, ()) =
        new.make(api, async |definition, options| api.containers.create(&definition, options).await).await?;
    told(&name, json)
}

/// The name of a container that was made.
pub fn told(name: &str, json: bool) -> Result<String, Error> {
    if json { json_text(&serde_json::json!({ "name": name })) } else { Ok(format!("{name}\n")) }
}

/// A container that is going to be made.
#[derive(Debug)]
pub struct New {
    name: Option<String>,
    container: Container,
    options: Creation,
    pull: image::Pull,
    /// Whether nothing is shown of that.
    quiet: bool,
    /// Whether this command's standard input is for it.
    pub input: bool,
    /// Whether every port that the image exposes is published.
    publish_all: bool,
    /// Ports that count as exposed.
    exposed: Vec<publish::Exposed>,
    /// Where its name is written to.
    id_file: Option<PathBuf>,
}

impl New {
    /// As the command line says.
    pub fn of(arguments: Arguments) -> Result<Self, Error> {
        if arguments.rm && arguments.restart != RestartPolicy::No {
            return Err(Error::Refused("--rm and --restart contradict each other; leave one of them out".into()));
        }
        let size = arguments.tty.then(terminal::size);
        let options = Creation {
            remove: Some(arguments.rm),
            rows: size.map(|size| size.rows),
            columns: size.map(|size| size.columns),
        };
        let name = arguments.name.as_ref().map(ToString::to_string);
        let id_file = arguments.cidfile.clone();
        if id_file.as_ref().is_some_and(|path| path.exists()) {
            return Err(Error::Refused(
                "the file of --cidfile is there already: remove it, or name another one".into(),
            ));
        }
        let (pull, quiet, publish_all) = (arguments.pull, arguments.quiet, arguments.network.publish_all);
        let input = attachment::input(&arguments.attach)? && arguments.interactive;
        let exposed = arguments.network.exposed.concat();
        let container = container(arguments)?;
        Ok(Self { name, options, pull, quiet, input, publish_all, exposed, id_file, container })
    }

    /// Makes it by this call, which gets the definition. A made-up name and ports of -P that are taken by then are replaced by
    /// others.
    pub async fn make<T>(
        &self,
        api: &Api,
        call: impl AsyncFn(String, Creation) -> Result<T, ApiError>,
    ) -> Result<(String, T), Error> {
        self.pull.carry_out(api, self.container.image.as_ref(), self.quiet).await?;
        loop {
            let name = self.name.clone().unwrap_or_else(made_up_name);
            let ports = if self.publish_all {
                publish::ports(api, &self.container, &self.exposed, self.quiet).await?
            } else {
                Vec::new()
            };
            match call(self.definition(&name, &ports)?, self.options.clone()).await {
                Ok(made) => {
                    if let Some(path) = &self.id_file {
                        std::fs::write(path, &name).map_err(|source| Error::Write { path: path.clone(), source })?;
                    }
                    return Ok((name, made));
                }
                Err(ApiError::Refused(_)) if self.name.is_none() && api.containers.instances(&name).await.is_ok() => {}
                Err(ApiError::Refused(_)) if publish::are_taken(api, &ports).await? => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As a configuration file would have it, with these ports published too.
    fn definition(&self, name: &str, ports: &[PublishedPorts]) -> Result<String, Error> {
        let name: ContainerName = name.parse().map_err(refused)?;
        let mut container = self.container.clone();
        container.ports.extend_from_slice(ports);
        let containers = [(name, container)].into();
        Configuration { containers, ..Configuration::default() }.to_toml().map_err(refused)
    }
}

fn container(arguments: Arguments) -> Result<Container, Error> {
    let words = |words: Vec<String>| Command::new(words).map_err(refused);
    let entrypoint =
        arguments.entrypoint.map(|program| words([program].into_iter().filter(|it| !it.is_empty()).collect()));
    let (image, command) = arguments.words.split_first().ok_or_else(|| refused("name an image"))?;
    let image: ImageName = image.parse().map_err(refused)?;
    let command = (!command.is_empty()).then(|| words(command.to_vec()));
    let variables = exec::variables(&arguments.environment_files, arguments.environment)?;
    // What has no value is empty, and no variable of this command.
    let labels = [exec::lines(&arguments.label_files)?, arguments.labels].concat();
    let cpus = arguments.processors.cpus()?;
    let ports = arguments.network.ports.clone();
    let extra_hosts = arguments.network.add_host.iter().cloned().collect();
    let resolution = arguments.network.resolution.clone();
    let (network_mode, networks) = arguments.network.choice()?;
    let (volumes, tmpfs) = arguments.mounts.all();
    let cap_drop = arguments.security.cap_drop.clone();
    let (cap_add, security) = arguments.security.choice();
    let pair = |text: String| {
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        (key.to_owned(), value.to_owned())
    };
    let sysctls: serde_json::Value =
        arguments.sysctl.into_iter().map(pair).map(|(key, value)| (key, serde_json::Value::from(value))).collect();
    Ok(Container {
        command: command.transpose()?,
        entrypoint: entrypoint.transpose()?,
        environment: variables.into_iter().map(pair).collect(),
        user: arguments.user,
        group_add: arguments.group_add,
        working_dir: arguments.directory,
        hostname: arguments.hostname,
        tty: arguments.tty,
        stdin_open: arguments.interactive,
        init: arguments.init,
        restart: arguments.restart,
        stop_signal: arguments.stop_signal,
        stop_grace_period: arguments.stop_timeout.map(seconds).transpose()?,
        health: arguments.health.check()?,
        network_mode,
        networks,
        ipc: arguments.ipc,
        pid: arguments.pid,
        devices: arguments.device,
        shm_size: arguments.shm_size,
        ulimits: serde_json::from_value(ulimits(&arguments.ulimit)?).map_err(refused)?,
        sysctls: serde_json::from_value(sysctls).map_err(refused)?,
        ports,
        extra_hosts,
        dns: resolution.dns,
        dns_search: resolution.dns_search,
        dns_opt: resolution.dns_option,
        volumes,
        tmpfs,
        read_only: arguments.read_only,
        memory: arguments.memory,
        storage: arguments.storage,
        mem_reservation: arguments.memory_reservation,
        oom_score_adj: arguments.oom_score_adj,
        cpus,
        cpu_shares: arguments.processors.cpu_shares,
        cpuset: arguments.processors.cpuset_cpus,
        pids_limit: arguments.pids_limit,
        cap_add,
        cap_drop,
        security,
        labels: labels.into_iter().map(pair).collect(),
        ..Container::new(image)
    })
}

fn seconds(count: u64) -> Result<TimeSpan, Error> {
    format!("{count}s").parse().map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Refused(error.to_string())
}

/// `NAME=SOFT[:HARD]` as the configuration has it.
fn ulimits(words: &[String]) -> Result<serde_json::Value, Error> {
    let wrong = |word: &String| refused(format!("--ulimit {word}: write it like nofile=1024 or nofile=1024:4096"));
    let limit = |word: &String| {
        let (name, values) = word.split_once('=')?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |text: &str| text.parse::<i64>().ok();
        Some((name.to_owned(), serde_json::json!({ "soft": number(soft)?, "hard": number(hard)? })))
    };
    words.iter().map(|word| limit(word).ok_or_else(|| wrong(word))).collect()
}

/// Like `calm-heron-17`: easy to say and to type, and rarely taken.
pub fn made_up_name() -> String {
    const MANNERS: [&str; 16] = [
        "able", "bold", "calm", "deft", "easy", "fair", "glad", "hale", "keen", "lean", "mild", "neat", "proud",
        "quick", "sound", "true",
    ];
    const SHIPS: [&str; 16] = [
        "barge", "barque", "brig", "canoe", "clipper", "cutter", "dhow", "ferry", "galley", "junk", "ketch", "lugger",
        "packet", "schooner", "sloop", "yawl",
    ];
    // Seeded by the kernel.
    let random = RandomState::new().build_hasher().finish();
    let pick = |list: [&'static str; 16], shift: u32| {
        list.get(usize::try_from(random >> shift & 15).unwrap_or_default()).copied().unwrap_or_default()
    };
    format!("{}-{}-{}", pick(MANNERS, 0), pick(SHIPS, 4), (random >> 8) % 100)
}

#[cfg(test)]
mod tests;
