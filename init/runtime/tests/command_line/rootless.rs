//! Containers of a user who is not root: with his own ids only, and with those that newuidmap gives.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use crate::bench::{Bench, copy_program};

/// Runs the bundle as `nobody`, in a mount namespace where he has been given 65536 ids from 200000 on.
fn run_as_nobody(bench: &Bench) -> (i32, String, String) {
    let script = "
        set -e
        mount --bind subuid /etc/subuid; mount --bind subuid /etc/subgid
        chown -R 65534:65534 bundle
        mkdir -p home; chown 65534:65534 home
        export XDG_RUNTIME_DIR=$PWD/home
        exec setpriv --reuid 65534 --regid 65534 --clear-groups ./berth-oci run --bundle bundle rootless";
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&bench.path(""));
    std::fs::write(bench.path("subuid"), "nobody:200000:65536\n").unwrap();
    copy_program(&bench.path("berth-oci"));
    let arguments = ["--mount", "--propagation", "private", "/bin/sh", "-c", script];
    let output = Command::new("unshare").args(arguments).current_dir(bench.path("")).output().unwrap();
    assert_eq!(std::fs::read_dir(bench.path("home/berth-oci")).map_or(0, Iterator::count), 0, "state is left");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn bench(mappings: &serde_json::Value) -> Option<Bench> {
    let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/oom_score_adj; touch /made; \
                  cat /proc/self/setgroups; chown 5:5 /made 2> /dev/null && echo changed";
    let bench = Bench::new(&["/bin/sh", "-c", script])?;
    bench.change(|config| {
        config["process"]["oomScoreAdj"] = 100.into();
        config["process"]["capabilities"]["effective"] = json!(["CAP_CHOWN"]);
        config["process"]["capabilities"]["permitted"] = json!(["CAP_CHOWN"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN"]);
        config["root"]["readonly"] = false.into();
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("resources");
        linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        linux.insert("uidMappings".into(), mappings.clone());
        linux.insert("gidMappings".into(), mappings.clone());
        for mount in config["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
    });
    Some(bench)
}

#[test]
fn a_user_maps_his_own_ids() {
    let Some(bench) = bench(&json!([{ "containerID": 0, "hostID": 65534, "size": 1 }])) else { return };
    let (code, output, error) = run_as_nobody(&bench);
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1", "0", "65534", "1", "100", "deny"], "{code} {error}");
}

#[test]
fn a_user_maps_the_ids_that_he_was_given() {
    if !std::path::Path::new("/usr/bin/newuidmap").exists() {
        eprintln!("ignored, needs newuidmap");
        return;
    }
    let mappings = |size: u32| {
        json!([
            { "containerID": 0, "hostID": 65534, "size": 1 }, { "containerID": 1, "hostID": 200_000, "size": size },
        ])
    };
    let Some(bench) = bench(&mappings(65_536)) else { return };
    let (code, output, error) = run_as_nobody(&bench);
    let map = ["0", "65534", "1", "1", "200000", "65536"];
    let expected = [&["0"][..], &map, &map, &["100", "allow", "changed"]].concat();
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), expected, "{code} {error}");
    let Some(bench) = self::bench(&mappings(65_537)) else { return };
    let (code, _, error) = run_as_nobody(&bench);
    assert!(code == 1 && error.contains("map ids: newuidmap, which maps ids for who is not root, said: "), "{error}");
}

#[test]
fn limits_that_a_user_cannot_set_are_an_error() {
    let Some(bench) = bench(&json!([{ "containerID": 0, "hostID": 65534, "size": 1 }])) else { return };
    bench.change(|config| config["linux"]["resources"] = json!({ "pids": { "limit": 5 } }));
    let (code, _, error) = run_as_nobody(&bench);
    assert!(code == 1 && error.contains("linux.resources needs a cgroup that this user may write to"), "{error}");
}
