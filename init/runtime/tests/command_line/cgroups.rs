//! Where the tree of cgroup v2 is: not every machine has it at /sys/fs/cgroup.

use std::process::Command;

use serde_json::json;

use crate::bench::Bench;

/// Runs a script in a mount namespace with the tree at `place` alone; what it printed.
fn with_tree_at(place: &str, bench: &Bench, script: &str) -> String {
    let program = env!("CARGO_BIN_EXE_berth-oci");
    let script = format!(
        "mount -t tmpfs none /sys/fs/cgroup && mkdir -p {place} && mount -t cgroup2 none {place} || exit
        oci() {{ {program} --root state \"$@\" </dev/null 2>error; code=$?; cat error; return $code; }}
        {script}"
    );
    let arguments = ["--mount", "--propagation", "private", "/bin/sh", "-c", &script];
    let output = Command::new("unshare").args(arguments).current_dir(bench.path("")).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

const PLACES: [&str; 2] = ["/sys/fs/cgroup/unified", "/mnt"];

#[test]
fn the_tree_is_found_where_it_is_mounted() {
    for place in PLACES {
        let Some(bench) = Bench::new(&["/bin/cat", "/proc/self/cgroup"]) else { return };
        let id = bench.id("elsewhere");
        bench.change(|config| {
            // The container has none of its own: what it sees is the machine's.
            config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
            config["linux"]["resources"]["unified"] = json!({ "cgroup.max.depth": "7" });
        });
        let script = format!(
            "oci create --bundle bundle {id} >/dev/null; cat {place}/{id}/cgroup.max.depth
            oci delete --force {id}; [ -e {place}/{id} ] || echo gone
            oci run --bundle bundle {id}"
        );
        let output = with_tree_at(place, &bench, &script);
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let line = output.lines().last().unwrap_or_default();
        assert!(output.starts_with("7\ngone\n") && line.starts_with("0::/") && line.ends_with(&id), "{output} {own}");
    }
}

#[test]
fn a_limit_is_refused_where_the_tree_lacks_its_controller() {
    for place in PLACES {
        let Some(bench) = Bench::new(&["/bin/true"]) else { return };
        let id = bench.id("lacking");
        let controllers = with_tree_at(place, &bench, &format!("cat {place}/cgroup.controllers"));
        let lacking =
            ["memory", "pids"].into_iter().find(|name| !controllers.split_whitespace().any(|own| own == *name));
        let Some(lacking) = lacking else {
            eprintln!("ignored, this machine's tree has both controllers");
            return;
        };
        bench.change(|config| config["linux"]["resources"] = json!({ lacking: { "limit": 1 << 30 } }));
        let output = with_tree_at(place, &bench, &format!("oci run --bundle bundle {id}; echo $?; ls -d {place}/{id}"));
        let expected =
            format!("the limit {lacking}.max needs the cgroup controller {lacking}, which {place} does not have");
        assert!(output.contains(&expected) && output.contains("\n1\n"), "{output}");
        assert!(output.contains("No such file"), "a cgroup is left: {output}");
    }
}
