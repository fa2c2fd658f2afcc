//! `berth stats` and `berth top`: what containers use, as docker's stats has it; redrawn every second on a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use berth_control::message::Statistics;
use clap::Args;
use serde::Serialize;

use super::api::Api;
use super::error::Error;
use super::{format, json_text, table};

/// Between two looks, in which the processor's use is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// Which containers.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also the containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Look once and end
    #[arg(long)]
    no_stream: bool,
    /// The containers; all that run if there is none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By name.
    Name,
    /// What uses most of the processor, then of the memory.
    Busiest,
}

/// Of one container.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    statistics: Statistics,
    /// Of one processor, in per cent, since the last look.
    cpu_percent: f64,
}

/// Prints until it is interrupted, or once.
pub async fn run(api: &Api, arguments: &Arguments, order: Order, json: bool) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    let live = !arguments.no_stream && !json && output.is_terminal();
    let arguments = &Arguments { names: api.instances(&arguments.names).await?, ..*arguments };
    let mut before = look(api, arguments).await?;
    for name in &arguments.names {
        if !before.1.contains_key(name) {
            // Says that there is none, or else it does not run.
            api.inspect(name).await?;
            return Err(Error::Refused(format!("container {name} is not running; `-a` shows it all the same")));
        }
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(api, arguments).await?;
        let rows = rows(&before, &now, order);
        let text = match (json, live) {
            (true, _) => json_text(&rows)?,
            (false, false) => render(&rows, table::terminal_width()),
            (false, true) => screen(&rows, table::terminal_width(), table::terminal_height()),
        };
        output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(Error::Output)?;
        if arguments.no_stream || !live {
            return Ok(());
        }
        before = now;
    }
}

type Look = (Instant, BTreeMap<String, Statistics>);

async fn look(api: &Api, arguments: &Arguments) -> Result<Look, Error> {
    let wanted = |name: &String| arguments.names.is_empty() || arguments.names.contains(name);
    let all: Vec<Statistics> = api.containers.statistics().await?.into_iter().map(Into::into).collect();
    let named = all.into_iter().filter(|one| wanted(&one.name)).map(|one| (one.name.clone(), one));
    let mut found: BTreeMap<_, _> = named.collect();
    if arguments.all {
        let others = api.list().await?.into_iter().map(|container| container.name).filter(wanted);
        for name in others {
            found.entry(name.clone()).or_insert(Statistics { name, ..Statistics::default() });
        }
    }
    Ok((Instant::now(), found))
}

fn rows(before: &Look, now: &Look, order: Order) -> Vec<Row> {
    let elapsed = now.0.duration_since(before.0).as_secs_f64();
    let row = |statistics: &Statistics| {
        // One that has been started again in between counts from 0.
        let earlier = before.1.get(&statistics.name).map_or(0, |one| one.cpu_us);
        let used = Duration::from_micros(statistics.cpu_us.saturating_sub(earlier)).as_secs_f64();
        Row { statistics: statistics.clone(), cpu_percent: if elapsed > 0.0 { used / elapsed * 100.0 } else { 0.0 } }
    };
    let mut rows: Vec<Row> = now.1.values().map(row).collect();
    if order == Order::Busiest {
        let busier = |left: &Row, right: &Row| {
            let processor = right.cpu_percent.total_cmp(&left.cpu_percent);
            processor.then(right.statistics.memory_bytes.cmp(&left.statistics.memory_bytes))
        };
        rows.sort_by(busier);
    }
    rows
}

/// What is shown until the next look: as many rows as there is room for, the first ones.
fn screen(rows: &[Row], width: Option<usize>, height: Option<usize>) -> String {
    // To the upper left, and everything below is erased (ECMA-48, CUP and ED).
    const BEGIN: &str = "\x1b[H\x1b[J";
    // The heading, and the line where the cursor stays.
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(2));
    if rows.len() <= room {
        return BEGIN.to_owned() + &render(rows, width);
    }
    let shown = room.saturating_sub(1);
    format!("{BEGIN}{}{} more\n", render(&rows[..shown], width), rows.len() - shown)
}

/// The table; with shorter figures where the line is too short for it.
fn render(rows: &[Row], width: Option<usize>) -> String {
    let wide = render_with(rows, None, format::bytes);
    let fits = |width: usize| wide.lines().all(|line| line.chars().count() <= width);
    if width.is_none_or(fits) { wide } else { render_with(rows, width, format::short_bytes) }
}

fn render_with(rows: &[Row], width: Option<usize>, bytes: fn(u64) -> String) -> String {
    let cells = rows.iter().map(|row| {
        let one = &row.statistics;
        // What docker counts: without what the kernel can drop at once.
        let used = one.memory_bytes.saturating_sub(one.memory_reclaimable_bytes);
        vec![
            one.name.clone(),
            format!("{:.1}%", row.cpu_percent),
            bytes(used),
            one.memory_limit_bytes.map_or_else(|| "none".to_owned(), bytes),
            one.tasks.to_string(),
            bytes(one.read_bytes),
            bytes(one.written_bytes),
            bytes(one.received_bytes),
            bytes(one.sent_bytes),
        ]
    });
    let heading = ["NAME", "CPU", "MEMORY", "LIMIT", "TASKS", "READ", "WRITTEN", "RECEIVED", "SENT"];
    table::render(&heading, &cells.collect::<Vec<_>>(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(containers: &[(&str, u64)], at: Instant) -> Look {
        let one = |(name, cpu_us): &(&str, u64)| Statistics {
            name: (*name).into(),
            cpu_us: *cpu_us,
            memory_bytes: 3 << 20,
            memory_reclaimable_bytes: 1 << 20,
            tasks: 2,
            received_bytes: 1024,
            sent_bytes: 5,
            ..Statistics::default()
        };
        (at, containers.iter().map(|container| (container.0.to_owned(), one(container))).collect())
    }

    #[test]
    fn the_processors_use_is_that_between_two_looks() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(2);
        let rows = rows(&look(&[("web", 1_000_000)], begin), &look(&[("web", 1_500_000)], later), Order::Name);
        let expected = "\
NAME  CPU    MEMORY   LIMIT  TASKS  READ  WRITTEN  RECEIVED  SENT
web   25.0%  2.0 MiB  none   2      0 B   0 B      1.0 KiB   5 B
";
        assert_eq!(render(&rows, None), expected);
    }

    /// Containers whose figures are as wide as they become.
    fn wide(count: usize) -> Vec<Row> {
        let row = |number| Row {
            statistics: Statistics {
                name: format!("a-container-with-a-name-{number}"),
                memory_bytes: 1_023 << 20,
                memory_limit_bytes: Some(1_023 << 20),
                tasks: 12_345,
                read_bytes: 1_023 << 30,
                written_bytes: 1_023 << 30,
                received_bytes: 1_023 << 30,
                sent_bytes: 1_023 << 30,
                ..Statistics::default()
            },
            cpu_percent: 1_234.5,
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn figures_keep_their_units_on_80_columns() {
        let text = render(&wide(2), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let figures = "1234.5%  1023M   1023M  12345  1023G  1023G    1023G     1023G";
        assert!(text.lines().skip(1).all(|line| line.ends_with(figures)), "{text}");
        assert!(render(&wide(1), Some(200)).contains("1023.0 GiB"));
    }

    #[test]
    fn the_live_table_is_no_higher_than_the_terminal() {
        let lines = |count, height| screen(&wide(count), Some(80), height).lines().count();
        assert_eq!((lines(22, Some(24)), lines(23, Some(24)), lines(500, Some(24))), (23, 23, 23));
        let text = screen(&wide(500), Some(80), Some(24));
        assert!(text.ends_with("\n479 more\n"), "{text}");
        assert!(text.contains("a-con"), "the first ones are gone");
        assert_eq!((lines(500, None), lines(3, Some(1))), (501, 2));
    }

    #[test]
    fn the_busiest_comes_first_in_top() {
        let begin = Instant::now();
        let (before, now) = (look(&[("a", 0), ("b", 0)], begin), look(&[("a", 10), ("b", 20)], begin + INTERVAL));
        let names = |order| rows(&before, &now, order).into_iter().map(|row| row.statistics.name).collect::<Vec<_>>();
        assert_eq!(
            (names(Order::Name), names(Order::Busiest)),
            (vec!["a".into(), "b".into()], vec!["b".to_owned(), "a".into()])
        );
    }
}
