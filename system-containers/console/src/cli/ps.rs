//! `berth ps`: the containers.

mod filters;
mod size;

use berth_control::message::{Container, ContainerState, Kind};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::table::{self, Table};
use super::template::Template;
use super::{format, json_text};
use filters::Filter;
pub use size::Listed;
use size::{NAMES, Size};

/// Which containers, and how much of them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also the stopped ones and Berth's own
    #[arg(short, long)]
    all: bool,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// Only those that fit: name=, id=, ancestor= (a part of the image), status=, exited=CODE, health=, publish=PORT,
    /// expose=PORT, label=KEY or KEY=VALUE, network=, volume=; of several of one kind any, of labels all
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    /// Cut nothing off to fit the terminal
    #[arg(long)]
    no_trunc: bool,
    /// Only so many, those that were started last, whatever came of them
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only the one that was started last
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Also what each has written to its own file system, and with its image, in bytes on the disk
    #[arg(short, long)]
    size: bool,
    /// Print this of each: {{.name}}, {{.state}}, {{.Status}}, {{.Ports}}; names are those of --json, and docker's; with
    /// `table` before it under a heading
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
}

impl Arguments {
    fn last(&self) -> Option<usize> {
        if self.latest { Some(1) } else { self.last }
    }

    /// Whether sizes are asked for.
    fn wants_sizes(&self) -> bool {
        self.size || self.format.as_ref().is_some_and(|format| NAMES.iter().any(|name| format.names(name)))
    }

    fn shows(&self, container: &Container) -> bool {
        // Who asks for a state wants to see it, also that of the stopped ones.
        let all =
            self.all || (self.last().is_some() && is_users(container)) || self.filters.iter().any(Filter::is_of_all);
        (all || (is_users(container) && container.state != ContainerState::Stopped))
            && filters::all_take(&self.filters, container, None)
    }
}

/// The text to print.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let mut containers = api.list().await?;
    containers.retain(|container| arguments.shows(container));
    filters::retain(api, &arguments.filters, &mut containers).await?;
    if let Some(count) = arguments.last() {
        containers.sort_by_key(|container| std::cmp::Reverse(container.started_us));
        containers.truncate(count);
    }
    let listed = Listed::of(api, containers, (json || !arguments.quiet) && arguments.wants_sizes()).await?;
    if json {
        return json_text(&listed);
    }
    if arguments.quiet {
        return Ok(listed.iter().map(|listed| format!("{}\n", listed.container.name)).collect());
    }
    let uptime_ms = api.describe().await?.uptime_ms;
    let width = if arguments.no_trunc { None } else { table::terminal_width() };
    if let Some(template) = &arguments.format {
        return by_template(template, &listed, uptime_ms, width);
    }
    Ok(render(&listed, uptime_ms, arguments.all, width))
}

/// As the template says, a line each; or a table.
fn by_template(template: &Template, listed: &[Listed], uptime_ms: u64, width: Option<usize>) -> Result<String, Error> {
    let views = |listed: &Listed| {
        let container = &listed.container;
        let mut dockers = serde_json::json!({
            "ID": container.name,
            "Names": container.name,
            "Status": format::Condition { container, uptime_ms }.to_string(),
            "Ports": ports(container),
        });
        if let Some(size) = &listed.size {
            dockers["Size"] = size.text().into();
        }
        Ok([dockers, serde_json::to_value(listed).map_err(|error| Error::Output(error.into()))?])
    };
    let views = listed.iter().map(views).collect::<Result<Vec<_>, Error>>()?;
    template.list(views, width).map_err(Error::Refused)
}

fn ports(container: &Container) -> String {
    container.ports.iter().map(format::port).collect::<Vec<_>>().join(", ")
}

/// Whether a configuration declared it.
pub fn is_users(container: &Container) -> bool {
    container.kind == Kind::User
}

/// The table.
pub fn render(listed: &[Listed], uptime_ms: u64, all: bool, width: Option<usize>) -> String {
    if listed.is_empty() {
        return "no containers; those that a configuration declares are listed here, `berth ps --all` lists Berth's own\n"
            .to_owned();
    }
    let mut heading = vec!["NAME", "STATE", "IMAGE", "ADDRESSES", "PORTS", "RESTARTS"];
    if all {
        heading.insert(1, "KIND");
    }
    let is_sized = listed.iter().any(|listed| listed.size.is_some());
    if is_sized {
        heading.push("SIZE");
    }
    let mut table = Table::new(&heading);
    for Listed { container, size } in listed {
        table.cell(&container.name);
        if all {
            table.cell(if container.kind == Kind::System { "system" } else { "user" });
        }
        table.cell(format::Condition { container, uptime_ms });
        table.cell(&container.image);
        table.list(&container.addresses);
        table.list(container.ports.iter().map(format::port));
        table.cell(container.restarts);
        if is_sized {
            table.cell(size.as_ref().map(Size::text).unwrap_or_default());
        }
    }
    table.render(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::Port;

    fn web() -> Container {
        Container {
            name: "web".into(),
            kind: Kind::User,
            state: ContainerState::Running,
            health: berth_control::message::Health::None,
            image: "nginx:1.27".into(),
            reason: String::new(),
            pid: 312,
            restarts: 2,
            started_us: 10_000_000,
            exit_code: 1,
            addresses: vec!["172.20.0.2".into()],
            ports: vec![Port {
                host_address: String::new(),
                host_port: 8080,
                container_port: 80,
                further_ports: 0,
                protocol: "tcp".into(),
            }],
        }
    }

    #[test]
    fn containers_are_a_table() {
        let mut failed = web();
        failed.name = "job".into();
        failed.state = ContainerState::Failed;
        failed.reason = "images/job.tar is not an archive".into();
        failed.ports.clear();
        failed.addresses.clear();
        let expected = "\
NAME  STATE                                     IMAGE       ADDRESSES   PORTS         RESTARTS
web   running 1m 35s                            nginx:1.27  172.20.0.2  8080->80/tcp  2
job   failed: images/job.tar is not an archive  nginx:1.27                            2
";
        assert_eq!(render(&[web().into(), failed.into()], 105_000, false, None), expected);
    }

    #[test]
    fn sizes_are_a_column_and_what_nobody_counts_is_a_dash() {
        let sized = |written, image| Listed { container: web(), size: Some(Size { written, image }) };
        let listed = [sized(Some(20 << 10), Some(1 << 20)), sized(None, Some(1 << 20)), sized(Some(512), None)];
        let table = render(&listed, 105_000, true, None);
        let ends: Vec<&str> = table.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
        assert_eq!(ends, ["SIZE", "20.0 KiB (virtual 1.0 MiB)", "-", "512 B"]);
        let shown = |text: &str| by_template(&text.parse().unwrap(), &listed[..2], 105_000, None).unwrap();
        let expected = "20.0 KiB (virtual 1.0 MiB) 20480 1048576\n- <no value> 1048576\n";
        assert_eq!(shown("{{.Size}} {{.written_bytes}} {{.image_bytes}}"), expected);
        for wanted in ["ps -s", "ps --size", "ps --format {{.Size}}", "ps --format {{.written_bytes}}"] {
            assert!(line(wanted).wants_sizes(), "{wanted}");
        }
        assert!(!line("ps --format {{.Names}}").wants_sizes());
        assert!("{{if .reason}}{{.Size}}{{end}}".parse::<Template>().unwrap().names("size"));
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(text: &str) -> Arguments {
        <Line as clap::Parser>::try_parse_from(text.split(' ')).unwrap().arguments
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_those_of_several_are_not() {
        let mut stopped = web();
        stopped.state = ContainerState::Stopped;
        assert!(line("ps -f name=we -f name=db").shows(&web()) && !line("ps -f name=db").shows(&web()));
        assert!(line("ps --filter status=exited").shows(&stopped) && !line("ps -f status=exited").shows(&web()));
        assert!(!line("ps -f name=web -f ancestor=redis").shows(&web()));
        assert!(<Line as clap::Parser>::try_parse_from(["ps", "-f", "colour=red"]).is_err());
    }

    #[test]
    fn stopped_and_system_containers_are_for_all() {
        let mut stopped = web();
        stopped.state = ContainerState::Stopped;
        let mut system = web();
        system.kind = Kind::System;
        let (few, all) = (line("ps"), line("ps -a"));
        assert!(few.shows(&web()) && !few.shows(&stopped) && !few.shows(&system));
        assert!(all.shows(&stopped) && all.shows(&system));
    }

    #[test]
    fn a_template_has_dockers_names_and_ours() {
        let shown = |text: &str| by_template(&text.parse().unwrap(), &[web().into()], 105_000, None).unwrap();
        assert_eq!(shown("{{.Names}} {{.Status}} {{.exit_code}} {{.Ports}}"), "web running 1m 35s 1 8080->80/tcp\n");
        assert_eq!(shown("{{range .ports}}{{.host_port}}{{end}} {{len .ports}}"), "8080 1\n", "not docker's text");
        assert_eq!(shown("table {{.ID}}\\t{{.State}}"), "ID   STATE\nweb  running\n");
    }

    #[test]
    fn a_mistake_in_a_template_is_told_with_dockers_names_and_ours() {
        let error = by_template(&"{{.nam}}".parse().unwrap(), &[web().into()], 105_000, None).unwrap_err().to_string();
        assert!(["Names", "Status", "exit_code", "ports"].iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn the_last_ones_are_shown_whatever_came_of_them() {
        let stopped = Container { state: ContainerState::Stopped, ..web() };
        assert!(line("ps -l").shows(&stopped) && line("ps -n 3").shows(&stopped) && !line("ps").shows(&stopped));
        assert_eq!((line("ps -l").last(), line("ps -n 3").last()), (Some(1), Some(3)));
    }

    #[test]
    fn no_containers_are_told_so() {
        assert!(render(&[], 0, false, None).contains("no containers"));
    }
}
