//! `berth logs`: what containers have printed.
//!
//! Like docker's: what went to standard output comes out there, what went to standard error there. Several containers
//! are merged by time, each line with its container's name before it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use berth_control::dbus::LogQuery;
use berth_control::logs::{INIT, KERNEL, Line, READERS};
use berth_control::message::Stream;
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::format;

/// Which lines.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The containers, or what is declared with replicas; `kernel` is the kernel's log, `init` that of PID 1
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Go on with new lines until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each container; `all` for all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Only what was printed since a moment (as --timestamps prints it, or shorter: 2026-11-22T10:30, UTC without a zone; or
    /// seconds since 1970), or within a time (90s, 1h30m, 1d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Only what was printed until a moment, or until so long ago; with -f, which ends then, it may be still to come
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<u64>,
    /// Only standard output or only standard error
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr"])]
    stream: Option<String>,
    /// Show when each line was printed
    #[arg(short, long)]
    timestamps: bool,
}

/// How many lines; `None` is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        _ => text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "neither a number nor `all`".to_owned()),
    }
}

/// In microseconds since 1970.
pub fn since(text: &str) -> Result<u64, String> {
    since_from(text, format::now_us()).ok_or_else(|| {
        "neither a moment like 2026-11-22T10:30 (UTC), 2026-11-22T10:30:05.25+01:00 or 1795343400 nor a time like 90s, \
         1h30m, 1d"
            .to_owned()
    })
}

fn since_from(text: &str, now_us: u64) -> Option<u64> {
    let ago = || format::parse_span(text).map(|us| now_us.saturating_sub(us));
    ago().or_else(|| format::parse_seconds(text)).or_else(|| format::parse_moment(text))
}

/// How a line is printed.
#[derive(Clone, Copy, Debug)]
struct Form {
    json: bool,
    names: bool,
    timestamps: bool,
}

/// Prints as the lines come.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<(), Error> {
    let query = LogQuery {
        tail: arguments.tail.0,
        since_us: arguments.since,
        until_us: arguments.until,
        stream: arguments.stream.clone(),
        follow: Some(arguments.follow),
    };
    let mut readers = Vec::new();
    let mut names = Vec::new();
    for name in &arguments.names {
        match [KERNEL, INIT].contains(&name.as_str()) {
            true => names.push(name.clone()),
            false => names.extend(api.instances(std::slice::from_ref(name)).await?),
        }
    }
    if names.len() > READERS {
        return Err(Error::Refused(format!(
            "{} logs at once are more than the {READERS} that the system container `logs` reads for everybody; name fewer \
             containers, or single replicas, at a time",
            names.len()
        )));
    }
    for name in names {
        let pipe = api.containers.logs(&name, query.clone()).await?;
        readers.push((name, BufReader::new(File::from(OwnedFd::from(pipe)))));
    }
    let form = Form { json, names: readers.len() > 1, timestamps: arguments.timestamps };
    let (mut output, mut errors) = (io::stdout().lock(), io::stderr().lock());
    let printed = if arguments.follow {
        follow(readers, form, &mut output, &mut errors)
    } else {
        merge(readers, form, &mut output, &mut errors)
    };
    printed.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Refused(
            "the system container `logs` ended before its answer did; it is starting again: ask once more, with --since \
             for what came after the last line here"
                .to_owned(),
        ),
        _ => Error::Output(error),
    })
}

/// All to their ends, the earliest line first.
fn merge<R: BufRead>(
    readers: Vec<(String, R)>,
    form: Form,
    output: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<()> {
    let (mut heads, mut outcome) = (Vec::new(), Ok(()));
    // One that is cut off keeps the others from nothing.
    let mut next_of = |reader: &mut R| {
        next(reader).unwrap_or_else(|error| {
            outcome = Err(error);
            None
        })
    };
    for (name, mut reader) in readers {
        let record = next_of(&mut reader);
        heads.push((name, reader, record));
    }
    loop {
        let time = |record: &Vec<u8>| Line::parse(record).map_or(0, |line| line.time_us);
        let earliest = heads
            .iter_mut()
            .filter_map(|(name, reader, record)| record.as_ref().map(time).map(|time| (time, name, reader, record)))
            .min_by_key(|(time, ..)| *time);
        let Some((_, name, reader, record)) = earliest else { break };
        if let Some(record) = record {
            print(name, record, form, output, errors)?;
        }
        *record = next_of(reader);
    }
    output.flush()?;
    outcome
}

/// As they come; a thread reads each pipe.
fn follow<R: BufRead + Send + 'static>(
    readers: Vec<(String, R)>,
    form: Form,
    output: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<()> {
    // Room for one line each: a reader waits for the terminal, `logs` for the reader.
    let (sender, receiver) = mpsc::sync_channel(readers.len());
    for (name, mut reader) in readers {
        let sender = sender.clone();
        std::thread::spawn(move || {
            while let Some(record) = next(&mut reader).transpose() {
                let is_last = record.is_err();
                if sender.send((name.clone(), record)).is_err() || is_last {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut outcome = Ok(());
    for (name, record) in receiver {
        match record {
            Ok(record) => print(&name, &record, form, output, errors)?,
            Err(error) => outcome = Err(error),
        }
        output.flush()?;
    }
    outcome
}

/// The next record without its line break; `None` at the end, [`io::ErrorKind::UnexpectedEof`] where there is none.
fn next(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    reader.read_until(b'\n', &mut record)?;
    if record.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((!record.is_empty()).then_some(record))
}

fn print(name: &str, record: &[u8], form: Form, output: &mut impl Write, errors: &mut impl Write) -> io::Result<()> {
    let Ok(line) = Line::parse(record) else { return Ok(()) };
    if form.json {
        let value = serde_json::json!({
            "container": name,
            "time": format::moment(line.time_us),
            "stream": line.stream.to_string(),
            "partial": line.partial,
            "text": String::from_utf8_lossy(line.text),
        });
        return writeln!(output, "{value}");
    }
    let mut text = Vec::new();
    if form.names {
        text.extend_from_slice(format!("{name} | ").as_bytes());
    }
    if form.timestamps {
        text.extend_from_slice(format!("{} ", format::moment(line.time_us)).as_bytes());
    }
    text.extend_from_slice(line.text);
    // A piece of a long line goes on where it stopped, unless something stands before each piece.
    if !line.partial || form.names || form.timestamps {
        text.push(b'\n');
    }
    match line.stream {
        Stream::Stdout => output.write_all(&text),
        Stream::Stderr => errors.write_all(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[tokio::test]
    async fn the_logs_of_all_replicas_are_asked_for_and_that_of_the_kernel_as_it_is() {
        let (api, mut peer) = crate::cli::api::peer::pair().await;
        let words = ["logs", "kernel", "web", "secret"];
        let arguments = <Command as clap::Parser>::try_parse_from(words).unwrap().arguments;
        let answers = async {
            peer.answer("Instances", &vec!["web-1", "web-2"]).await;
            // Who may only see logs is told nothing of replicas.
            let call = peer.call("Instances").await;
            peer.refuse(&call, "add containers.list").await;
            for name in ["kernel", "web-1", "web-2", "secret"] {
                let call = peer.call("Logs").await;
                assert_eq!(call.body().deserialize::<(String, LogQuery)>().unwrap().0, name);
                let (reader, mut writer) = std::io::pipe().unwrap();
                writer.write_all(b"\n").unwrap();
                peer.reply(&call, &zbus::wire::OwnedFd::from(OwnedFd::from(reader))).await;
            }
        };
        tokio::join!(run(&api, &arguments, false), answers).0.unwrap();
    }

    #[tokio::test]
    async fn more_logs_than_can_be_read_at_once_are_refused_before_one_is_opened() {
        let (api, mut peer) = crate::cli::api::peer::pair().await;
        let arguments = <Command as clap::Parser>::try_parse_from(["logs", "web"]).unwrap().arguments;
        let replicas: Vec<String> = (1..=READERS + 1).map(|number| format!("web-{number}")).collect();
        let asked = async { tokio::join!(run(&api, &arguments, false), peer.answer("Instances", &replicas)).0 };
        let refused = tokio::time::timeout(std::time::Duration::from_secs(10), asked).await.expect("one is opened");
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with("129 logs at once are more than the 128"), "{text}");
    }

    #[test]
    fn who_follows_may_say_until_when() {
        let words = ["logs", "-f", "--until", "2099-01-01", "web"];
        let arguments = <Command as clap::Parser>::try_parse_from(words).unwrap().arguments;
        assert!(arguments.follow && arguments.until.is_some());
    }

    const PLAIN: Form = Form { json: false, names: false, timestamps: false };

    fn printed(logs: &[(&str, &str)], form: Form) -> (String, String) {
        let readers = logs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect();
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        merge(readers, form, &mut output, &mut errors).unwrap();
        (String::from_utf8(output).unwrap(), String::from_utf8(errors).unwrap())
    }

    #[test]
    fn each_stream_comes_out_where_it_went_in() {
        let (output, errors) = printed(&[("web", "1 o one\n2 e two\n3 O thr\n3 o ee\n\n")], PLAIN);
        assert_eq!((output.as_str(), errors.as_str()), ("one\nthree\n", "two\n"));
    }

    #[test]
    fn several_containers_are_merged_by_time() {
        let logs = [("web", "1 o a\n4 o d\n\n"), ("db", "2 o b\n3 o c\n\n")];
        let (output, _) = printed(&logs, Form { names: true, ..PLAIN });
        assert_eq!(output, "web | a\ndb | b\ndb | c\nweb | d\n");
    }

    #[test]
    fn followed_lines_all_arrive() {
        let readers = vec![("web".to_owned(), &b"1 o a\n2 o b\n\n"[..])];
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        follow(readers, PLAIN, &mut output, &mut errors).unwrap();
        assert_eq!(output, b"a\nb\n");
    }

    #[test]
    fn a_log_that_is_cut_off_is_an_error_behind_all_there_is() {
        let readers = || vec![("web".to_owned(), &b"1 o a\n4 o "[..]), ("db".to_owned(), &b"2 o b\n5 o c\n\n"[..])];
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let merged = merge(readers(), PLAIN, &mut output, &mut errors);
        assert_eq!(merged.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(output, b"a\nb\nc\n");
        output.clear();
        let followed = follow(readers(), PLAIN, &mut output, &mut errors);
        assert_eq!(followed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(output.len(), b"a\nb\nc\n".len());
    }

    #[test]
    fn a_line_is_json_for_scripts() {
        let (output, _) = printed(&[("web", "1709210096000000 e oh\n\n")], Form { json: true, ..PLAIN });
        let value: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(value["time"], "2024-02-29T12:34:56.000000Z");
        assert_eq!(value["stream"], "stderr");
        assert_eq!(value["text"], "oh");
    }

    #[test]
    fn a_time_is_a_moment_or_an_age() {
        let now = 1_709_210_096_000_000;
        assert_eq!(since_from("90s", now), Some(now - 90_000_000));
        assert_eq!(since_from("2h", now), Some(now - 7_200_000_000));
        assert_eq!(since_from("2024-02-29T12:34:56Z", 0), Some(now));
        assert_eq!(since_from("1709210096", 0), Some(now));
        assert_eq!(since_from("1h30m", now), Some(now - 5_400_000_000));
        // What `logs -t` prints.
        assert_eq!(since_from(&format::moment(now + 5), 0), Some(now + 5));
        assert_eq!(since_from("1709210096.5", 0), Some(now + 500_000));
        assert_eq!(since_from("99999999999999999999d", now), None);
        assert_eq!(since_from("99999999999999999", now), None);
        assert_eq!(since_from("soon", now), None);
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(tail("10"), Ok(Tail(Some(10))));
        assert_eq!(tail("all"), Ok(Tail(None)));
        assert!(tail("-1").is_err());
    }
}
