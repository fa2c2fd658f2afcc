//! What can be said on the command line; names and letters are runc's.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, ValueEnum};

use crate::commands::Command;
use crate::events::interval;
use crate::update::bytes;

/// After the name; callers look for "version" and a line "spec:" as runc prints them.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1");

/// An OCI runtime for Linux with cgroup v2.
#[derive(Debug, Parser)]
#[command(name = "berth-oci", version = VERSION, disable_version_flag = true, args_override_self = true)]
pub struct Arguments {
    /// Print the version, and that of the specification
    #[arg(short, long, action = ArgAction::Version)]
    pub version: (),
    /// Where the state of containers is kept
    /// [default: /run/berth-oci, or berth-oci in $XDG_RUNTIME_DIR for who is not root]
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// A file to write errors to
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// How to write them
    #[arg(long, default_value = "text")]
    pub log_format: LogFormat,
    /// Taken and ignored: there is nothing more to say
    #[arg(long)]
    pub debug: bool,
    /// Refused: cgroups are made directly
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Taken and ignored
    #[arg(long = "rootless")]
    pub rootless_mode: Option<String>,
    /// Taken and ignored
    #[arg(long, hide = true)]
    pub criu: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Whatever is asked of a command that is not there.
#[derive(Debug, Args)]
pub struct Unsupported {
    #[arg(allow_hyphen_values = true, trailing_var_arg = true, hide = true)]
    pub words: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Id {
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Create {
    pub id: String,
    /// The directory with config.json
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// A socket to send the terminal to
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// A file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 up the program keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: i32,
    /// Refused: the root is always exchanged by pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// A socket to send the process's pidfd to
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the container
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete it at its end
    #[arg(long)]
    pub keep: bool,
    /// Taken and ignored
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub struct Kill {
    pub id: String,
    /// A name with or without SIG, or a number
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// To all of its processes
    #[arg(short, long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    pub id: String,
    /// Kill it first if it runs
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// A file with the `process` of a config.json
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    #[arg(long)]
    pub cwd: Option<String>,
    /// KEY=value
    #[arg(short, long)]
    pub env: Vec<String>,
    /// UID[:GID]
    #[arg(short, long, allow_hyphen_values = true)]
    pub user: Option<String>,
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// A capability to add
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// Do not wait for it
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: i32,
    #[arg(long)]
    pub no_new_privs: bool,
    /// An AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// An SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// Although the container is paused
    #[arg(long)]
    pub ignore_paused: bool,
    /// A socket to send the process's pidfd to
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// A cgroup below the container's own, which is there
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct List {
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Only the names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Ps {
    pub id: String,
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// For ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    pub id: String,
    /// A file with `resources` of a config.json; - for standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// In bytes or with a unit as 64m, -1 for none
    #[arg(short, long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory: Option<i64>,
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory_swap: Option<i64>,
    /// Refused but for -1: not in cgroup v2
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub kernel_memory: Option<i64>,
    /// Refused but for -1: not in cgroup v2
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub kernel_memory_tcp: Option<i64>,
    /// Refused: not in cgroup v2
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Refused: not in cgroup v2
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    #[arg(long)]
    pub cpu_share: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Intel RDT: a line as L3:0=7f0;1=1f
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: a line as MB:0=20;1=70
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    pub id: String,
    /// Once, and end
    #[arg(long)]
    pub stats: bool,
    /// As 5s, 100ms or 1m30s
    #[arg(long, default_value = "5s", value_parser = interval)]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct Spec {
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// For a container in a user namespace of the caller's ids
    #[arg(long)]
    pub rootless: bool,
}
