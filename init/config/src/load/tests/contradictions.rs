//! Values that are right by themselves and do not go together.

use super::*;

#[test]
fn the_same_port_twice_names_both() {
    let text = "\
[containers.a]
image = 'x'
ports = ['127.0.0.1:8000-8010:80-90', '53:53/udp']
[containers.b]
image = 'x'
ports = ['53:53', '192.0.2.1:8005:80', '0.0.0.0:8010:80']
";
    let wanted = "\
error: containers.b.ports[2]: \"a\" already has the machine's port 8010/tcp
 --> berth.toml:6:40
  |
6 | ports = ['53:53', '192.0.2.1:8005:80', '0.0.0.0:8010:80']
  |                                        ^^^^^^^^^^^^^^^^^
 --> berth.toml:3:10
  |
3 | ports = ['127.0.0.1:8000-8010:80-90', '53:53/udp']
  |          --------------------------- published here
  = help: publish one of them at another port";
    assert_eq!(mistake(text), wanted);
}

#[test]
fn more_ports_than_can_be_handed_on_are_refused() {
    let container = |keys: &str| format!("[containers.a]\nimage = 'x'\n{keys}\n");
    for fits in [
        "ports = ['10000-20000:10000-20000/udp', '1-9999:1-9999', '20000-30000:10000-20000']",
        "replicas = 50\nports = ['10000-20000:10000-20000/udp', '8000-8125:9000-9125']",
    ] {
        assert!(load_text(&container(fits)).is_ok(), "{fits}");
    }
    let shown = mistake(&container("replicas = 2\nports = ['80:80', '10000-20000:20000-30000/udp']"));
    assert!(shown.contains("containers.a.ports: 10002 ports, 256 times as the replicas share them"), "{shown}");
    assert!(shown.contains("help: let the range of the machine be that of the container"), "{shown}");
    let two = "ports = ['40000-65535:1000-26535']\n[containers.b]\nimage = 'x'\nreplicas = 2\nports = ['1-100:2-101']";
    assert!(mistake(&container(two)).contains("containers.b.ports: 100 ports"), "all containers together");
    let entries: Vec<String> = (1..=1001).map(|port| format!("'{port}:{port}'")).collect();
    let shown = mistake(&container(&format!("ports = [{}]", entries.join(", "))));
    assert!(shown.contains("containers.a.ports: 1001 entries are too many, 1000 are the most"), "{shown}");
}

#[test]
fn the_port_of_a_tunnel_is_not_published() {
    let text = "\
[network.links.wg0]
wireguard = { listen_port = 51820 }
[containers.a]
image = 'x'
ports = ['51820:80', '51819-51821:80-82/udp']
";
    let shown = mistake(text);
    assert!(
        shown.contains("containers.a.ports[1]: the tunnel \"wg0\" already has the machine's port 51820/udp"),
        "{shown}"
    );
    assert!(shown.contains("berth.toml:5:22") && shown.contains("berth.toml:2:"), "{shown}");
}

#[test]
fn elements_keep_their_index_and_place_beside_wrong_ones() {
    let lines = mistakes("[containers.web]\nimage = 'x'\nports = ['80:80', 'x', '81:80', '80:81']\n");
    assert!(lines[0].starts_with("berth.toml:3:19: containers.web.ports[1]: "), "{lines:#?}");
    assert!(lines[1].starts_with("berth.toml:3:33: containers.web.ports[3]: this container already has"), "{lines:#?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_cycle_is_shown_once_and_whole() {
    let text = "\
[containers.a]
image = 'x'
depends_on = ['b']
[containers.b]
image = 'x'
depends_on = ['d', 'c']
[containers.c]
image = 'x'
depends_on = ['a']
[containers.d]
image = 'x'
";
    let shown = mistake(text);
    assert!(shown.contains("the containers wait for each other: a -> b -> c -> a"), "{shown}");
    assert!(shown.contains("berth.toml:6:20") && shown.contains("berth.toml:9:15"), "{shown}");
    assert!(mistake("[containers.a]\nimage = 'x'\ndepends_on = ['a']\n").contains("depends on itself"));
    let long = "\
[containers.a]\nimage = 'x'\ndepends_on.b = { condition = 'started' }
[containers.b]\nimage = 'x'\ndepends_on = { c = {}, a = {} }
[containers.c]\nimage = 'x'\n";
    let shown = mistake(long);
    assert!(shown.contains("the containers wait for each other: a -> b -> a"), "{shown}");
    assert!(shown.contains("containers.a.depends_on.b") && shown.contains("berth.toml:6:"), "{shown}");
}

#[test]
fn a_diamond_is_no_cycle() {
    let text = "\
[containers.a]\nimage = 'x'\ndepends_on = ['b', 'c']
[containers.b]\nimage = 'x'\ndepends_on = ['d']
[containers.c]\nimage = 'x'\ndepends_on = ['d']
[containers.d]\nimage = 'x'
";
    assert_eq!(load_text(text).expect("nothing is wrong").containers.len(), 4);
}

#[test]
fn contradictions_within_a_container_are_found() {
    let web = "[containers.web]\nimage = 'x'\n";
    let cases = [
        ("network_mode = 'host'\nports = ['80:80']", "its ports are the machine's"),
        ("network_mode = 'none'\nports = ['80:80']", "it cannot have ports"),
        ("volumes = ['a:/x']\ntmpfs = ['/x/']", "something else already appears at /x"),
        ("volumes = ['a:/proc/sys']", "/proc is the kernel's"),
        ("memory = 512", "512 of memory is too little"),
        ("[containers.web.sysctls]\n'kernel.panic' = 1", "it is a setting of the whole machine"),
        ("depends_on = ['network']", "there is no container \"network\""),
        ("replicas = 257\nports = ['80:80']", "connections are shared out among 256 containers at most"),
        ("replicas = 2000", "2000 replicas are too many"),
        ("replicas = 2\n[containers.web-2]\nimage = 'x'", "has the name \"web-2\", as has one of \"web-2\""),
        ("depends_on = ['c-1']\n[containers.c]\nimage = 'x'\nreplicas = 2", "there is no container \"c-1\""),
        ("every = '1h'\nschedule = 'daily'", "has a `schedule` already"),
        ("every = '10ms'", "10ms is too short"),
        ("schedule = '0 3 * *'", "it has 4 fields, not five"),
        ("depends_on = ['c']\n[containers.c]\nimage = 'x'\nevery = '1h'", "runs only when its time comes"),
        (
            "depends_on.c = { condition = 'healthy' }\n[containers.c]\nimage = 'x'\nhealth = { disable = true }",
            "\"c\" has no health check",
        ),
        (
            "depends_on.c = { condition = 'completed' }\n[containers.c]\nimage = 'x'",
            "is started again whenever it ends",
        ),
    ];
    for (text, wanted) in cases {
        let shown = mistake(&format!("{web}{text}\n"));
        assert!(shown.contains(wanted), "{shown}");
    }
    assert!(mistake("[containers.kernel]\nimage = 'x'\n").contains("the name of a log"));
    assert!(mistake("[containers.logs]\nimage = 'x'\n").contains("the name of a system container"));
    assert!(mistake("[watchdog]\ntimeout = '1s'\n").contains("5s to 10m are possible"));
    assert!(mistake("[containers.Web]\nimage = 'x'\n").contains("it has 'W'"));
}

#[test]
fn a_definition_fits_into_a_message() {
    let environment = |length| {
        let long = "x".repeat(length);
        load_text(&format!("[containers.web]\nimage = 'x'\nenvironment = {{ A = '{long}' }}\n"))
    };
    assert!(environment(60 * 1024).is_ok());
    assert!(environment(65 * 1024).unwrap_err()[0].to_string().contains("of 65536 at most"));
}

#[test]
fn a_health_check_is_of_one_kind() {
    let check = |text: &str| mistake(&format!("[containers.a]\nimage = 'x'\n[containers.a.health]\n{text}\n"));
    assert!(check("").contains("says nothing"));
    assert!(check("tcp = 1\nexec = 'true'").contains("is one of"));
    assert!(load_text("[containers.a]\nimage = 'x'\nhealth = { interval = '1s' }\n").is_ok(), "of its image");
    assert!(check("exec = []").contains("no program"));
    assert!(check("tcp = 80\ninterval = '1ms'").contains("health.interval"));
    assert!(check("http = 'https://localhost/'").contains("http://"));
    let none = "[containers.a]\nimage = 'x'\nnetwork_mode = 'none'\nhealth = { tcp = '192.0.2.1:80' }\n";
    assert!(mistake(none).contains("no network"));
}

#[test]
fn a_container_runs_in_namespaces_that_another_one_can_lend() {
    let two =
        |web: &str, db: &str| format!("[containers.web]\nimage = 'x'\n{web}\n[containers.db]\nimage = 'x'\n{db}\n");
    for (web, db) in [
        ("ipc = 'container:db'\npid = 'container:db'\nnetwork_mode = 'container:db'", "ipc = 'shareable'"),
        ("pid = 'container:db'\nsecurity.user_namespace = 'host'", "security.user_namespace = 'host'"),
        ("pid = 'private'", "ipc = 'private'"),
    ] {
        let text = two(web, db);
        assert!(load_text(&text).is_ok(), "{text}: {:?}", load_text(&text));
    }
    let third = "ipc = 'shareable'\n[containers.c]\nimage = 'x'\nipc = 'shareable'";
    for (web, db, expected) in [
        ("ipc = 'container:d'", "", "there is no such container"),
        ("ipc = 'container:db'", "", "\"db\" shares its IPC namespace with nobody"),
        ("ipc = 'container:web'", "", "\"web\" has no IPC namespace of its own either"),
        ("pid = 'container:db'", "replicas = 2", "there are replicas of \"db\""),
        ("pid = 'container:db'", "every = '1m'", "\"db\" runs only when its time comes"),
        ("pid = 'container:db'", "depends_on = ['web']", "\"db\" waits for this one"),
        ("pid = 'container:db'", "security.user_namespace = 'host'", "another kind of user namespace than \"db\""),
        ("pid = 'container:db'\nipc = 'container:c'", third, "user namespaces of both \"c\" and \"db\""),
        (
            "pid = 'container:db'",
            "ipc = 'container:c'\n[containers.c]\nimage = 'x'\nipc = 'shareable'",
            "name that one",
        ),
        ("ipc = 'container:db'\nshm_size = '1M'", "ipc = 'shareable'", "the /dev/shm of another one"),
        ("ipc = 'container:db'\nsysctls = { 'kernel.sem' = 1 }", "ipc = 'shareable'", "the IPC namespace of another"),
        ("ipc = 'mine'", "", "says not whose it is"),
    ] {
        let text = two(web, db);
        assert!(mistake(&text).contains(expected), "{text}: {}", mistake(&text));
    }
}

#[test]
fn a_replica_knows_the_name_it_is_declared_by() {
    let text = "[containers.web]\nimage = 'x'\nreplicas = 2\n[containers.a-1]\nimage = 'x'\n";
    let configuration = load_text(text).unwrap();
    let declared = |name| configuration.declared_name(name).map(ToString::to_string);
    assert_eq!(declared("web-2").as_deref(), Some("web"));
    assert_eq!(declared("a-1").as_deref(), Some("a-1"));
    assert_eq!((declared("web-3"), declared("web"), declared("web-0")), (None, None, None));
}

#[test]
fn one_registry_has_one_entry_however_it_is_spelt() {
    let shown = mistake("[trust.'docker.io']\nrequire = 'digest'\n[trust.'index.docker.io']\nrequire = 'nothing'\n");
    assert!(shown.contains("\"index.docker.io\" and \"docker.io\" are the same"), "{shown}");
    assert!(shown.contains("berth.toml:3"), "{shown}");
    let shown = mistake("[registries.'ghcr.io:443']\nusername = 'a'\n[registries.'GHCR.io']\nusername = 'b'\n");
    assert!(shown.contains("are the same"), "{shown}");
    let text = "[registries.'ghcr.io']\nusername = 'a'\npassword = 'b'\n[registries.'ghcr.io:5000']\n";
    assert!(load_text(text).is_ok());
}
