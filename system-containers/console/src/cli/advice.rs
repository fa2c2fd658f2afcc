//! What to do instead of flags that docker has and Berth has not.

use clap::error::{ContextKind, ContextValue};

const INSTEAD: [(&str, &str); 16] = [
    ("--init", "let the image's entrypoint be an init such as tini, if its program leaves processes behind"),
    ("--dns", "containers ask the machine's name servers: `dns` in [network] of the configuration"),
    ("--dns-search", "containers search where the machine does: `dns_search` in [network] of the configuration"),
    ("--cpu-shares", "--cpus limits processor time"),
    ("--memory-swap", "-m limits memory and swap together"),
    ("--gpus", "name the device nodes with --device"),
    ("--link", "put both on one --network; names are found there"),
    (
        "--log-driver",
        "what a container prints is kept: `berth logs` shows it, [logs] in the configuration says how much",
    ),
    ("--log-opt", "what a container prints is kept: `berth logs` shows it, [logs] in the configuration says how much"),
    ("--platform", "name the image of this machine's architecture by its digest"),
    ("--userns", "`security = { user_namespace = \"host\" }` in the configuration"),
    ("--volumes-from", "name the same volumes with -v"),
    (
        "--privileged",
        "give the container `cap_add`, or `berth run --privileged`: what is executed in it may what it may",
    ),
    (
        "--detach-keys",
        "the program ends with this command's terminal: for one to come back to, `berth run -dit` and `berth attach`",
    ),
    ("--size", "`berth volume ls` shows how full volumes are, `berth stats` what is written"),
    ("-s", "`berth volume ls` shows how full volumes are, `berth stats` what is written"),
];

/// Berth's way, if a command line was refused for a flag of docker's.
pub fn on(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return None;
    }
    let flag = flag.split('=').next().unwrap_or_default();
    INSTEAD.iter().find(|(known, _)| *known == flag).map(|(flag, advice)| format!("instead of {flag}: {advice}"))
}
