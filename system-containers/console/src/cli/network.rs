//! `berth network`: the links of the machine, and changes of them; [`networks`] are those of containers.

mod networks;

use berth_control::message::Link;
use clap::{Args, Subcommand};

use super::api::Api;
use super::error::Error;
use super::{apply, json_text, table};

/// What to do; the list of links without a word.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the links, their addresses and what they lack
    #[command(alias = "status")]
    Links,
    /// List the networks of containers
    #[command(alias = "ls")]
    List {
        /// Only the names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Tell everything about networks of containers, as JSON
    Inspect(networks::Names),
    /// Put a configuration in force that changes nothing but networks
    Apply(apply::Arguments),
    /// Keep what `apply --confirm` has put in force
    Confirm,
}

/// Does it.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    match &arguments.command {
        Some(Command::List { quiet }) => networks::list(api, *quiet, json).await,
        Some(Command::Inspect(names)) => networks::inspect(api, names).await,
        None | Some(Command::Links) => {
            let links = api.describe().await?.links;
            if json { json_text(&links) } else { Ok(render(&links)) }
        }
        Some(Command::Apply(arguments)) => apply::run_for_network(api, arguments, json).await,
        Some(Command::Confirm) => apply::confirm(api, json).await,
    }
}

fn render(links: &[Link]) -> String {
    let row = |link: &Link| {
        let carrier = if link.carrier { "yes" } else { "no" };
        vec![
            link.name.clone(),
            carrier.to_owned(),
            link.mac.clone(),
            link.addresses.join(", "),
            link.missing.join("; "),
        ]
    };
    let rows: Vec<_> = links.iter().map(row).collect();
    table::render(&["LINK", "CARRIER", "MAC", "ADDRESSES", "MISSING"], &rows, table::terminal_width())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_line() {
        let link = Link {
            name: "eth0".into(),
            mac: "52:54:00:12:34:56".into(),
            carrier: true,
            addresses: vec!["192.0.2.7/24".into(), "2001:db8::7/64".into()],
            missing: vec!["no DHCP server answers".into()],
        };
        let text = render(&[link]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("LINK  CARRIER  MAC"), "{text}");
        assert!(
            lines[1].contains("yes      52:54:00:12:34:56  192.0.2.7/24, 2001:db8::7/64  no DHCP server"),
            "{text}"
        );
    }
}
