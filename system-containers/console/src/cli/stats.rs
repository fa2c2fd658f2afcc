//! `berth stats` and `berth top`: what containers use, as docker's stats has it: every second, until it is
//! interrupted or told to look once; redrawn on a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use berth_control::message::Statistics;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::error::Error;
use super::template::Template;
use super::{format, json_text, table};

/// To the upper left, and everything below is erased (ECMA-48, CUP and ED).
const BEGIN: &str = "\x1b[H\x1b[J";

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
    /// Cut nothing off to fit the terminal
    #[arg(long)]
    no_trunc: bool,
    /// Print this of each: {{.name}}, {{.CPUPerc}}, {{.MemUsage}}; names are those of --json, and docker's; `json`, or with
    /// `table` before it under a heading
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
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

impl Row {
    /// Docker's names, then ours.
    fn views(&self) -> Result<[Value; 2], Error> {
        let one = &self.statistics;
        let limit = one.memory_limit_bytes.map_or_else(|| "none".to_owned(), format::bytes);
        let share =
            one.memory_limit_bytes.filter(|limit| *limit > 0).map_or(0.0, |limit| self.used() as f64 / limit as f64);
        let dockers = json!({
            "Container": one.name,
            "ID": one.name,
            "CPUPerc": format!("{:.2}%", self.cpu_percent),
            "MemUsage": format!("{} / {limit}", format::bytes(self.used())),
            "MemPerc": format!("{:.2}%", share * 100.0),
            "NetIO": format!("{} / {}", format::bytes(one.received_bytes), format::bytes(one.sent_bytes)),
            "BlockIO": format!("{} / {}", format::bytes(one.read_bytes), format::bytes(one.written_bytes)),
            "PIDs": one.tasks.to_string(),
        });
        Ok([dockers, serde_json::to_value(self).map_err(|error| Error::Output(error.into()))?])
    }

    /// The memory that docker counts: without what the kernel can drop at once.
    fn used(&self) -> u64 {
        self.statistics.memory_bytes.saturating_sub(self.statistics.memory_reclaimable_bytes)
    }
}

/// Prints until it is interrupted, or once.
pub async fn run(api: &Api, arguments: &Arguments, order: Order, json: bool) -> Result<(), Error> {
    let output = io::stdout();
    let on_terminal = output.is_terminal();
    tell(api, arguments, order, json, on_terminal, &mut output.lock()).await
}

/// The same to anybody. One document of JSON is for those who look once.
async fn tell(
    api: &Api,
    arguments: &Arguments,
    order: Order,
    json: bool,
    on_terminal: bool,
    output: &mut dyn Write,
) -> Result<(), Error> {
    let once = arguments.no_stream || json;
    let names = api.instances(&arguments.names).await?;
    let mut before = look(api, &names, arguments.all).await?;
    for name in &names {
        if !before.1.contains_key(name) {
            // Says that there is none, or else it does not run.
            api.inspect(name).await?;
            return Err(Error::Refused(format!("container {name} is not running; `-a` shows it all the same")));
        }
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(api, &names, arguments.all).await?;
        let rows = rows(&before, &now, order);
        let redrawn = on_terminal && !once;
        let width = if arguments.no_trunc { None } else { table::terminal_width() };
        let text = match &arguments.format {
            _ if json => json_text(&rows)?,
            Some(template) => {
                let views = rows.iter().map(Row::views).collect::<Result<Vec<_>, Error>>()?;
                let begin = if redrawn { BEGIN } else { "" };
                begin.to_owned() + &template.list(views, width).map_err(Error::Refused)?
            }
            None if redrawn => screen(&rows, width, table::terminal_height()),
            None => render(&rows, width),
        };
        output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(Error::Output)?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

type Look = (Instant, BTreeMap<String, Statistics>);

async fn look(api: &Api, names: &[String], stopped_too: bool) -> Result<Look, Error> {
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    let all: Vec<Statistics> = api.containers.statistics().await?.into_iter().map(Into::into).collect();
    let named = all.into_iter().filter(|one| wanted(&one.name)).map(|one| (one.name.clone(), one));
    let mut found: BTreeMap<_, _> = named.collect();
    if stopped_too {
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
        vec![
            one.name.clone(),
            format!("{:.1}%", row.cpu_percent),
            bytes(row.used()),
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

    /// Takes one table, as `head` does.
    #[derive(Default)]
    struct Head(Vec<u8>);

    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.ends_with(b"\n") {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn told(line: &str, json: bool, looks: usize) -> (Result<(), Error>, String) {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let arguments = <Line as clap::Parser>::try_parse_from(line.split(' ')).unwrap().arguments;
        let (api, mut peer) = super::super::api::peer::pair().await;
        let mut output = Head::default();
        let answers = async {
            for _ in 0..looks {
                let one = Statistics { name: "web".into(), tasks: 7, ..Statistics::default() };
                peer.answer("Statistics", &vec![berth_control::dbus::Statistics::from(one)]).await;
            }
            peer.call("Statistics").await;
            panic!("it looks once more");
        };
        let ended = tokio::select! {
            biased;
            ended = tell(&api, &arguments, Order::Name, json, false, &mut output) => ended,
            () = answers => Ok(()),
        };
        (ended, String::from_utf8(output.0).unwrap())
    }

    #[tokio::test]
    async fn a_pipe_gets_a_table_every_second_until_it_is_closed() {
        let (ended, text) = told("stats", false, 3).await;
        assert!(matches!(ended, Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        assert!(text.starts_with("NAME") && text.contains("web"), "{text}");
    }

    #[tokio::test]
    async fn one_look_is_one_table_or_document() {
        for (line, json, part) in [("stats --no-stream", false, "NAME"), ("stats", true, "\"tasks\": 7")] {
            let (ended, text) = told(line, json, 2).await;
            assert!(ended.is_ok() && text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_template_has_dockers_names_and_ours() {
        let begin = Instant::now();
        let rows = rows(&look(&[("web", 0)], begin), &look(&[("web", 10)], begin + INTERVAL), Order::Name);
        let shown = |text: &str| text.parse::<Template>().unwrap().list([rows[0].views().unwrap()], None).unwrap();
        assert_eq!(shown("{{.Name}} {{.MemUsage}} {{.PIDs}} {{.tasks}}"), "web 2.0 MiB / none 2 2\n");
        assert_eq!(shown("table {{.Container}}\\t{{.NetIO}}"), "CONTAINER  NETIO\nweb        1.0 KiB / 5 B\n");
        let error = "{{.nam}}".parse::<Template>().unwrap().list([rows[0].views().unwrap()], None).unwrap_err();
        assert!(error.contains("CPUPerc") && error.contains("cpu_percent"), "{error}");
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
