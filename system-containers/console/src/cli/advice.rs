//! What to do instead of flags that docker has and Berth has not.

use clap::error::{ContextKind, ContextValue};

const LOGS: &str = "what a container prints is kept: `berth logs` shows it, [logs] in the configuration says how much";
const SIZES: &str = "`berth ps -s` shows how large containers are, `berth volume ls` how full volumes are";
const REAL_TIME: &str = "--cpus and --cpu-shares share processors out; there is no real time beside that";
const DISKS: &str =
    "nothing slows a container's disks down: --storage limits how much it writes, `berth stats` shows how much";
const SWAP: &str = "-m limits memory and swap together";
const WINDOWS: &str = "it is for Windows; --cpus, --memory and --storage limit a container here";

const INSTEAD: [(&str, &str); 39] = [
    ("--domainname", "--hostname takes the whole name, such as web.example.com"),
    ("--annotation", "-l gives a label; the one runtime that there is reads no annotations"),
    ("--blkio-weight", DISKS),
    ("--blkio-weight-device", DISKS),
    ("--device-read-bps", DISKS),
    ("--device-read-iops", DISKS),
    ("--device-write-bps", DISKS),
    ("--device-write-iops", DISKS),
    ("--cgroup-parent", "each container has a cgroup of its own: -m, --cpus and --pids-limit are its limits"),
    ("--cgroupns", "a container always has a cgroup namespace of its own; leave it out"),
    ("--cpu-rt-period", REAL_TIME),
    ("--cpu-rt-runtime", REAL_TIME),
    ("--cpu-count", WINDOWS),
    ("--cpu-percent", WINDOWS),
    ("--io-maxbandwidth", WINDOWS),
    ("--io-maxiops", WINDOWS),
    ("--isolation", WINDOWS),
    ("--cpuset-mems", "--cpuset-cpus: memory comes from where the processors are"),
    ("--device-cgroup-rule", "--device names the node, which may then be used and no other"),
    ("--disable-content-trust", "leave it out: [trust] in the configuration says what an image must show"),
    ("--gpus", "name the device nodes with --device"),
    ("--kernel-memory", "-m limits the kernel's memory for it too"),
    ("--link", "put both on one --network; names are found there"),
    ("--link-local-ip", "--ip and --ip6 give addresses of the network; link-local ones are the kernel's"),
    ("--log-driver", LOGS),
    ("--log-opt", LOGS),
    ("--memory-swap", SWAP),
    ("--memory-swappiness", SWAP),
    ("--oom-kill-disable", "a container at its limit is ended: give it more by -m, and --restart starts it again"),
    ("--runtime", "there is one, and it is part of PID 1; leave it out"),
    ("--storage-opt", "--storage is the most that it may write to its root"),
    ("--use-api-socket", "`api` in the configuration gives a container the parts of the API that it may use"),
    ("--uts", "with --network host a container has the machine's host name, else --hostname is its own"),
    (
        "--volume-driver",
        "volumes are directories of the machine: mount there what is elsewhere, and name the path with -v",
    ),
    ("--volumes-from", "name the same volumes with -v"),
    ("--privileged", "`berth run --privileged`, or `cap_add` of the container: what is executed in it may what it may"),
    ("--detach-keys", "the program ends with this terminal: to come back to one, `berth run -dit` and `berth attach`"),
    ("--size", SIZES),
    ("-s", SIZES),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// What `docker run --help` of Docker 28.2 lists, and the other names of three that it takes.
    const DOCKERS: &str = "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent \
        cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus \
        cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops \
        device-write-bps device-write-iops disable-content-trust dns dns-opt dns-option dns-search domainname entrypoint \
        env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval \
        health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc \
        isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory \
        memory-reservation memory-swap memory-swappiness mount name net net-alias network network-alias no-healthcheck \
        oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only \
        restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit \
        use-api-socket user userns uts volume volume-driver volumes-from workdir a c d e h i l m p P q t u v w";

    #[test]
    fn each_flag_of_dockers_run_is_ours_or_has_an_advice() {
        let arguments = crate::cli::Arguments::command();
        let run = arguments.find_subcommand("run").unwrap();
        let ours = |flag: &str| {
            run.get_arguments().any(|arg| {
                let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
                longs.contains(&flag) || arg.get_short().is_some_and(|short| short.to_string() == flag)
            })
        };
        for flag in DOCKERS.split_whitespace() {
            let dashed = format!("{}{flag}", if flag.len() == 1 { "-" } else { "--" });
            let advised = INSTEAD.iter().any(|(known, _)| *known == dashed);
            assert!(ours(flag) || advised, "{dashed} is neither a flag nor has it an advice");
        }
    }
}
