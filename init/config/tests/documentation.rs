//! `docs/configuration.md` is true: it has every key, no other, its defaults are the code's and its examples load.

use std::collections::{BTreeMap, BTreeSet};

use berth_config::{Configuration, Diagnostic, Source, load};
use serde_json::Value;

const TEXT: &str = include_str!("../../../docs/configuration.md");

/// A row of one of the tables.
struct Row {
    key: String,
    default: String,
    example: String,
}

/// The tables by their heading, `containers.<name>`.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in TEXT.lines() {
        if let Some(name) = line.strip_prefix("## `") {
            heading = name.trim_matches(['`', '[', ']']).to_owned();
            tables.entry(heading.clone()).or_default();
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [key, _, default, example, _] = cells.as_slice()
            && let Some(key) = key.strip_prefix("| `")
        {
            let code = |cell: &str| cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).map(str::to_owned);
            tables.get_mut(&heading).expect("a table has a heading").push(Row {
                key: key.trim_end_matches('`').to_owned(),
                default: code(default).unwrap_or_default(),
                example: code(example).unwrap_or_else(|| panic!("{key} has no example")),
            });
        }
    }
    tables
}

/// Every table of the schema by its heading.
fn schema_tables(schema: &Value, root: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Some(name) = schema["$ref"].as_str() {
        let definition = &root["$defs"][name.trim_start_matches("#/$defs/")];
        return schema_tables(definition, root, path, found);
    }
    if let Some(properties) = schema["properties"].as_object() {
        found.insert(path.to_owned(), properties.keys().cloned().collect());
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            schema_tables(property, root, &path, found);
        }
    }
    // A table that may be absent; of several forms the one without keys stands for all.
    let choices = schema["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    if choices.iter().any(|choice| choice["type"] == "null") {
        choices.iter().for_each(|choice| schema_tables(choice, root, path, found));
    }
    for below in [&schema["items"], &schema["additionalProperties"]] {
        let path = if below == &schema["items"] { path.to_owned() } else { format!("{path}.<name>") };
        if below.is_object() {
            schema_tables(below, root, &path, found);
        }
    }
}

fn read(text: &str) -> Result<Configuration, String> {
    let show = |mistakes: Vec<Diagnostic>| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    load(&[Source::new("example", text)]).map(|loaded| loaded.configuration).map_err(show)
}

/// A configuration with this line in this table, and what the line may need around it.
fn around(heading: &str, line: &str) -> String {
    let without_image = if line.starts_with("image") { "" } else { "image = 'x'\n" };
    match heading {
        "networks.<name>" => {
            let key = line.split(' ').next().unwrap_or_default();
            let around = match key {
                "gateways" => "subnets = ['10.88.0.0/24']\n",
                "driver" if line.contains("lan") => "parent = 'eth1'\nsubnets = ['10.88.0.0/24']\n",
                "parent" => "driver = 'macvlan'\nsubnets = ['10.88.0.0/24']\n",
                "mode" => "driver = 'macvlan'\nparent = 'eth1'\nsubnets = ['10.88.0.0/24']\n",
                _ => "",
            };
            format!("[networks.back]\n{around}{line}\n")
        }
        "" => format!("{line}\n"),
        "containers.<name>" => {
            let replicas = if line.ends_with("\"vip\"") { "replicas = 2\n" } else { "" };
            format!("[containers.db]\nimage = 'x'\n[containers.web]\n{without_image}{replicas}{line}\n")
        }
        "containers.<name>.allow" => {
            let ports = if line.starts_with("ports") { "" } else { "ports = [80]\n" };
            format!("[containers.web]\nimage = 'x'\n[[containers.web.allow]]\n{ports}{line}\n")
        }
        "containers.<name>.bandwidth" => format!("[containers.web]\nimage = 'x'\n[containers.web.bandwidth]\n{line}\n"),
        "containers.<name>.security" => format!("[containers.web]\nimage = 'x'\n[containers.web.security]\n{line}\n"),
        "containers.<name>.health" => {
            let kind =
                if ["exec", "http", "tcp"].iter().any(|kind| line.starts_with(kind)) { "" } else { "tcp = 80\n" };
            format!("[containers.web]\nimage = 'x'\n[containers.web.health]\n{kind}{line}\n")
        }
        "network.links.<name>.routes" => {
            let destination = if line.starts_with("destination") { "" } else { "destination = '10.0.0.0/8'\n" };
            format!("[[network.links.eth0.routes]]\n{destination}{line}\n")
        }
        "trust.<name>" => {
            let require = match line {
                line if line.starts_with("require") => "",
                line if line.contains(".pub") => "require = 'signature'\n",
                _ => "require = 'digest'\n",
            };
            format!("[trust.'*']\n{require}{line}\n")
        }
        "network.links.<name>" => {
            let matching = if line.starts_with("rename") { "match = { driver = 'e1000e' }\n" } else { "" };
            format!("[network.links.eth9]\n{matching}{line}\n")
        }
        "network.links.<name>.bond" => bond(line),
        "network.links.<name>.vlan" => {
            let given = |key: &str| line.starts_with(key);
            let link = if given("link") { "" } else { "link = 'eth0'\n" };
            let id = if given("id") { "" } else { "id = 1\n" };
            format!("[network.links.lan.vlan]\n{link}{id}{line}\n")
        }
        "network.links.<name>.vrf" => {
            let table = if line.starts_with("table") { "" } else { "table = 7\n" };
            format!("[network.links.red.vrf]\n{table}{line}\n")
        }
        "network.links.<name>.bridge" => format!("[network.links.lan.bridge]\n{line}\n"),
        "network.links.<name>.wireguard.peers" => {
            let key = "public_key = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg='\n";
            let key = if line.starts_with("public_key") { "" } else { key };
            format!("[[network.links.eth0.wireguard.peers]]\n{key}{line}\n")
        }
        "network.rules" => {
            let table = if line.starts_with("table") || line.starts_with("action = \"b") { "" } else { "table = 7\n" };
            let from = if line.starts_with("from") { "" } else { "from = '192.0.2.0/24'\n" };
            format!("[[network.rules]]\n{from}{table}{line}\n")
        }
        _ => format!("[{}]\n{line}\n", heading.replace("<name>", "eth0")),
    }
}

/// A bond in a mode that has the key.
fn bond(line: &str) -> String {
    let key = line.split(' ').next().unwrap_or_default();
    let around = match key {
        "" | "mode" | "ports" => "",
        "arp_interval" => "mode = 'active-backup'\narp_targets = ['192.0.2.1']\n",
        "arp_targets" => "mode = 'active-backup'\narp_interval = 1\n",
        "primary" => "mode = 'active-backup'\nports = ['eth0']\n",
        "tlb_dynamic_lb" => "mode = 'balance-tlb'\n",
        "packets_per_port" => "mode = 'balance-rr'\n",
        _ if key.starts_with("lacp") || key.starts_with("ad_") || key == "coupled_control" => "mode = '802.3ad'\n",
        _ => "mode = 'active-backup'\n",
    };
    format!("[network.links.bond0.bond]\n{around}{line}\n")
}

#[test]
fn every_key_is_there_and_no_other() {
    let schema = berth_config::schema();
    let mut wanted = BTreeMap::new();
    schema_tables(&schema, &schema, "", &mut wanted);
    // `allow`, `deny` and the like have the same entries everywhere, and are described where they come first.
    let rules = wanted.get("containers.<name>.allow").cloned();
    wanted.retain(|path, keys| path == "containers.<name>.allow" || Some(&*keys) != rules.as_ref());
    let present: BTreeMap<String, BTreeSet<String>> = tables()
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(heading, rows)| (heading, rows.into_iter().map(|row| row.key).collect()))
        .collect();
    assert_eq!(present, wanted);
}

#[test]
fn every_example_loads_and_is_about_its_key() {
    for (heading, rows) in tables() {
        for row in rows {
            assert!(row.example.starts_with(&format!("{} = ", row.key)), "{}", row.example);
            let text = around(&heading, &row.example);
            assert!(read(&text).is_ok(), "{text}{}", read(&text).unwrap_err());
        }
    }
}

#[test]
fn every_default_changes_nothing() {
    for (heading, rows) in tables() {
        for row in rows.iter().filter(|row| !row.default.is_empty()) {
            let line = format!("{} = {}", row.key, row.default);
            assert_eq!(read(&around(&heading, &line)), read(&around(&heading, "")), "[{heading}] {line}");
            assert_ne!(
                read(&around(&heading, &row.example)),
                read(&around(&heading, "")),
                "[{heading}] {}",
                row.example
            );
        }
    }
}

#[test]
fn every_toml_block_loads() {
    let blocks: Vec<&str> = TEXT.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        assert!(read(block).is_ok(), "{block}{}", read(block).unwrap_err());
    }
}

#[test]
fn the_shown_mistake_is_what_the_code_says() {
    let shown = TEXT.split("```\n").find(|block| block.starts_with("error: ")).expect("there is one");
    let text = "[containers.web]\nimage = 'x'\n\n\n\nmemroy = \"256M\"\n";
    let mistakes = load(&[Source::new("berth.toml", text)]).expect_err("it is wrong");
    assert_eq!(mistakes[0].to_string(), shown.trim_end());
}
