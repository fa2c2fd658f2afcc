//! What is shown loads to what was shown, as TOML for people and as JSON for the messages between processes.

use berth_config::{
    Configuration, Console, Container, Ipv6, LinkMatch, LinkSettings, Network, Route, Seccomp, Security, Source,
    UserNamespace, load,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A value of a type that is written as text.
fn of<T>(text: &'static str) -> BoxedStrategy<T>
where
    T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug + 'static,
{
    let parse = |text: String| text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"));
    proptest::string::string_regex(text).expect("a regular expression").prop_map(parse).boxed()
}

/// A value that only serde can make, from one of some TOML values.
fn one_of<T>(values: &'static [&'static str]) -> BoxedStrategy<T>
where
    T: serde::de::DeserializeOwned + std::fmt::Debug + 'static,
{
    #[derive(serde::Deserialize)]
    struct Holder<T> {
        value: T,
    }
    let read = |value: &str| toml::from_str::<Holder<T>>(&format!("value = {value}")).expect("a value").value;
    select(values).prop_map(read).boxed()
}

fn dependencies() -> BoxedStrategy<berth_config::Dependencies> {
    let list = vec(of("[a-z][a-z0-9._-]{0,9}[a-z0-9]"), 0..3).prop_map(berth_config::Dependencies::List);
    let table =
        one_of(&["{ db = {} }", "{ a = { condition = 'service_healthy' }, b-c = { condition = 'completed' } }"]);
    prop_oneof![list, table].boxed()
}

const PATH: &str = "(/[ -9;-~&&[^/.]]{1,9}){1,3}/?";
const ADDRESS: &str = "[1-9][0-9]{0,1}\\.0\\.2\\.1|fe80::[1-9]|::ffff:192\\.0\\.2\\.1";

fn process() -> impl Strategy<Value = Container> {
    let command = || option::of(vec(any::<String>().prop_map(|word| word.replace('\0', "")), 0..4));
    let command =
        move || command().prop_map(|words| words.map(|words| berth_config::Command::new(words).expect("no zero byte")));
    let variables = vec(("[^=\0]{1,9}", "[^\0]{0,9}"), 0..4).prop_map(|variables| variables.into_iter().collect());
    let values = (
        of("[a-z]{1,5}(/[a-z]{1,5}){0,2}(:[a-z0-9]{1,5})?(@sha256:[0-9a-f]{64})?"),
        command(),
        command(),
        variables,
        option::of(of("[a-z_]{1,8}(:[0-9]{1,5})?|[0-9]{1,5}")),
        option::of(of(PATH)),
        option::of(of("[a-zA-Z0-9]{1,9}(\\.[a-z]-?[a-z])?")),
        dependencies(),
        (
            of("no|on-failure(:[1-9][0-9]{0,5})?|always|unless-stopped"),
            option::of(of("@?(hourly|monthly)|[1-5]?[0-9]( \\*/[1-9]){2} jan-mar [0-7]")),
            option::of(of("[1-9][0-9]{0,4}m")),
            option::of(any::<std::num::NonZeroU32>()),
        ),
        (
            one_of(&["'started'", "'notify'", "'listening:5432'"]),
            option::of(one_of(&[
                "{ exec = ['true', 'a b'] }",
                "{ http = 'http://localhost:8080/x?y=1', interval = '10s', retries = 4294967295 }",
                "{ disable = true }",
                "{ tcp = 5432, timeout = '100ms', start_period = '1h', start_interval = '1s' }",
            ])),
        ),
        option::of(of("SIG(HUP|TERM|KILL|RTMIN\\+[0-9]|RTMAX)|[1-9]|3[0-9]|6[0-4]")),
    );
    values.prop_map(
        |(
            image,
            command,
            entrypoint,
            environment,
            user,
            working_dir,
            hostname,
            depends_on,
            (restart, schedule, every, replicas),
            (readiness, health),
            signal,
        )| {
            Container {
                command,
                entrypoint,
                environment,
                user,
                working_dir,
                hostname,
                depends_on,
                restart,
                schedule,
                every,
                replicas,
                readiness,
                health,
                stop_signal: signal,
                ..Container::new(image)
            }
        },
    )
}

fn resources(container: Container) -> impl Strategy<Value = Container> {
    let values = (
        option::of(of("[0-9]{1,5}(ms|s|us|m)?|1h30m|1\\.[0-9]{1,7}s")),
        vec(of("((0\\.0\\.0\\.0|\\[::1\\]):)?[1-9][0-9]{0,3}:[1-9][0-9]{0,3}(/udp|/sctp)?|8000-8009:1-10"), 0..4),
        vec(of("([a-z][a-z0-9]{0,5}|/[a-z]{1,5}):(/[a-z ]{1,5}){1,3}(:ro)?"), 0..4),
        vec(of("(/[a-z]{1,5}){1,3}(:size=[1-9]{1,3}M?(,mode=[0-7]{1,4})?)?"), 0..3),
        option::of(of("[0-9]{1,12}|[0-9]{1,4}(\\.[0-9]{1,3})?[KMGkmg](iB)?")),
        any::<bool>(),
        vec(of("/dev/[a-z]{1,5}(:/dev/[a-z]{1,5})?(:r?w?m)?"), 0..3),
        (option::of(of("[1-9][0-9]{0,5}[MG]")), option::of(of("[1-9][0-9]{0,5}[MG]"))),
        option::of((0.01..4096.0).prop_map(|cpus| berth_config::Cpus::try_from(cpus).expect("in range"))),
        option::of(any::<std::num::NonZeroU32>()),
        btree_map(
            one_of(&["'nofile'", "'core'", "'rttime'", "'as'"]),
            one_of(&["-1", "0", "1024", "{ soft = 1, hard = -1 }", "{ soft = 0, hard = 9223372036854775807 }"]),
            0..3,
        ),
    );
    values.prop_map(move |values| {
        let (stop_grace_period, ports, volumes, tmpfs, shm_size, read_only, devices, sizes, cpus, pids_limit, ulimits) =
            values;
        let (memory, storage) = sizes;
        Container {
            stop_grace_period,
            ports,
            volumes,
            tmpfs,
            shm_size,
            read_only,
            devices,
            memory,
            storage,
            cpus,
            pids_limit,
            ulimits,
            ..container.clone()
        }
    })
}

fn confinement(container: Container) -> impl Strategy<Value = Container> {
    let pod = (one_of(&["'private'", "'shareable'", "'container:db'"]), one_of(&["'private'", "'container:db'"]));
    let security = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(host, unconfined, privileges)| Security {
        user_namespace: if host { UserNamespace::Host } else { UserNamespace::Auto },
        seccomp: if unconfined { Seccomp::Unconfined } else { Seccomp::Default },
        no_new_privileges: privileges,
    });
    let values = (
        (one_of(&["'bridge'", "'host'", "'none'", "'container:db'"]), pod),
        one_of(&["[]", "['default', 'back']", "{ back = { mac_address = '02:00:00:00:00:01', aliases = ['db'] } }"]),
        vec(of("ALL|all|(CAP_)?(NET_ADMIN|chown|Bpf)"), 0..3),
        vec(of("ALL|SYS_ADMIN"), 0..3),
        security,
        one_of(&["{}", "{ 'net.a/b.c' = 1, 'kernel.sem' = '1 2 3' }", "{ 'fs.mqueue.x' = true }"]),
        btree_map(any::<String>(), any::<String>(), 0..3),
        (
            option::of(of("[0-9]|[0-3]-[4-9](,1[0-9])?")),
            vec(of("[1-9][0-9]{0,3}|video|log"), 0..3),
            one_of(&["{}", "{ db = '192.0.2.7', 'a.example' = '2001:db8::7' }"]),
            (
                any::<bool>(),
                vec(of(ADDRESS), 0..3),
                vec(of("[a-z]{1,5}\\.[a-z]{1,5}|\\."), 0..2),
                vec(of("[!-~]{1,9}"), 0..3),
            ),
        ),
    );
    values.prop_map(move |values| {
        let ((network_mode, (ipc, pid)), networks, cap_add, cap_drop, security, sysctls, labels, more) = values;
        let (cpuset, group_add, extra_hosts, (init, dns, dns_search, dns_opt)) = more;
        Container {
            init,
            dns,
            dns_search,
            dns_opt,
            cpuset,
            group_add,
            extra_hosts,
            network_mode,
            ipc,
            pid,
            networks,
            cap_add,
            cap_drop,
            security,
            sysctls,
            labels,
            ..container.clone()
        }
    })
}

fn container() -> impl Strategy<Value = Container> {
    process().prop_flat_map(resources).prop_flat_map(confinement)
}

fn link() -> impl Strategy<Value = LinkSettings> {
    let pattern = || option::of(of("[!-~]{1,9}"));
    let matching = option::of((pattern(), pattern(), pattern(), pattern()));
    let prefix = || of("192\\.0\\.2\\.[1-9][0-9]{0,1}/(0|1[0-9]|32)|2001:db8::[0-9a-f]{1,4}/(0|64|128)");
    let route = (prefix(), option::of(of(ADDRESS)), option::of(any::<u32>()), option::of(any::<u32>()))
        .prop_map(|(destination, gateway, metric, table)| Route { destination, gateway, metric, table });
    let made = one_of::<LinkSettings>(MADE);
    let values = (
        matching,
        option::of(any::<bool>()),
        select(&[Ipv6::Auto, Ipv6::Static, Ipv6::Off]),
        vec(prefix(), 0..3),
        vec(of(ADDRESS), 0..3),
        vec(route, 0..3),
        vec(of(ADDRESS), 0..3),
        (option::of(of("68|1500|65535")), option::of(any::<u32>()), option::of(any::<u32>())),
        made,
    );
    values.prop_map(|(matching, dhcp, ipv6, addresses, gateways, routes, dns, (mtu, metric, table), made)| {
        LinkSettings {
            matching: matching.map(|(name, mac, driver, path)| LinkMatch { name, mac, driver, path }),
            dhcp,
            ipv6,
            addresses,
            gateways,
            routes,
            dns,
            mtu,
            metric,
            table,
            ..made
        }
    })
}

/// Links that are made, and what only goes with `match`.
const MADE: &[&str] = &[
    "{ rename = 'lan0', mac = '02:00:00:00:00:01' }",
    "{ bond = { mode = '802.3ad', ports = ['a', 'b'], lacp_rate = 'fast', miimon = '50ms', ad_actor_sys_prio = 7 } }",
    "{ bond = { mode = 'active-backup', arp_interval = 1, arp_targets = ['192.0.2.1', '::1'], arp_validate = 'all' } }",
    "{ vlan = { link = 'bond0', id = 4094, protocol = '802.1ad' } }",
    "{ bridge = { ports = ['a'], stp = true, priority = 7, ageing_time = '1m', vlan_filtering = true } }",
    "{ dummy = true }",
    "{ vrf = { table = 100, ports = ['a'] } }",
    "{ wireguard = { private_key = 'yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=', listen_port = 7, peers = [{ \
     public_key = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=', endpoint = '[::1]:9', allowed_ips = ['::/0'] }] } }",
];

prop_compose! {
    fn configuration()(
        hostname in option::of(of("[a-z][a-z0-9]{0,20}")),
        dns in vec(of(ADDRESS), 0..3),
        dns_search in vec(of("[a-z]{1,5}\\.[a-z]{1,5}"), 0..3),
        domains in one_of(&["{}", "{ 'corp.example' = ['192.0.2.1', '::1'] }"]),
        resolver in any::<bool>(),
        time_servers in vec(of("10\\.0\\.0\\.[1-9]|2001:db8::[1-9]|[a-z]{1,5}\\.org"), 0..3),
        inbound in vec(of("[1-9][0-9]{0,3}|5000-5005|[1-9]/(udp|sctp)"), 0..3),
        rules in one_of(&["[]", "[{ from = '192.0.2.0/24', table = 7 }, { mark = 9, incoming = 'a', action = 'prohibit' }]"]),
        links in btree_map(of("[a-z][!-$&-.0-9;-~]{0,14}"), link(), 0..3),
        shell in any::<bool>(),
        logs in one_of(&["{}", "{ size = '1G', age = '1d' }", "{ total = 5 }"]),
        watchdog in one_of(&["{}", "{ device = 'software', timeout = '30s' }", "{ device = 'off' }"]),
        images in one_of(&["{}", "{ keep = '30d' }", "{ reserve = '1G', keep = '90m' }"]),
        registries in one_of(&["{}", "{ 'docker.io' = { mirrors = ['m:5000/x'], username = 'u', password = '\"' } }",
            "{ 'a:5000' = { ca = 'certs/a.pem', client_certificate = 'b', client_key = 'c', plain_http = true } }"]),
        trust in one_of(&["{}", "{ '*' = { require = 'digest' }, 'docker.io' = { require = 'nothing' } }",
            "{ 'a:5000/b' = { require = 'signature', keys = ['k.pub', '''-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----'''] } }"]),
        proxy in one_of(&["{}", "{ https = 'http://u:p@proxy:3128', exclude = ['example.org'] }"]),
        sysctls in one_of(&["{}", "{ 'vm.swappiness' = 10, 'kernel.core_pattern' = '|/bin/x \"%p\"' }"]),
        networks in one_of(&["{}", "{ back = { subnets = ['10.9.0.0/24'], internal = true, mtu = 9000 } }"]),
        containers in btree_map(of("[a-z]([a-z0-9._-]{0,9}[a-z0-9])?"), container(), 0..3),
    ) -> Configuration {
        let network = Network { dns, dns_search, domains, resolver, time_servers, inbound, rules, links };
        let console = Console { shell };
        Configuration {
            hostname,
            network,
            console,
            logs,
            images,
            watchdog,
            registries,
            trust,
            proxy,
            sysctls,
            networks,
            containers,
        }
    }
}

proptest! {
    // Making such a large value takes long, and shrinking it fully minutes.
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_as_the_same(configuration in configuration()) {
        let text = configuration.to_toml().expect("it can be written");
        let read: Configuration = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        prop_assert_eq!(&read, &configuration, "{}", text);
        let json = serde_json::to_string(&configuration).expect("it can be written");
        let read: Configuration = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}\n{json}"));
        prop_assert_eq!(&read, &configuration);
    }

    #[test]
    fn what_loads_is_shown_so_that_it_loads_again(configuration in configuration()) {
        // Most of what chance makes contradicts itself somewhere: then the mistakes are all about that.
        let text = configuration.to_toml().expect("it can be written");
        match load(&[Source::new("berth.toml", text.clone())]) {
            Ok(loaded) => prop_assert_eq!(loaded.configuration, configuration, "{}", text),
            Err(mistakes) => for mistake in mistakes {
                prop_assert!(!mistake.message.contains("unknown key") && !mistake.message.starts_with("it is "), "{}", mistake);
            }
        }
    }
}
