//! Questions to logs of random frames in small segments, some compressed, beside all lines looked through one by one.

use std::io::{Read, Seek};

use berth_control::logs::Line;

use super::*;
use crate::follower::{Follower, Waits};
use crate::log::tests::{at, compress};

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

type Told = (u64, Stream, String);

/// What a reader gets.
fn told(log: &mut Log, query: &Query) -> Vec<Told> {
    let (part, end) = (find(log, query), log.end());
    let mut file = tempfile::tempfile().unwrap();
    let mut follower = Follower::new(query.clone(), file.try_clone().unwrap(), part, end, 0);
    while follower.pump(Some(log)) == Waits::Room {}
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let line = |record: &str| {
        let line = Line::parse(record.as_bytes()).unwrap();
        (line.time_us, line.stream, String::from_utf8(line.text.to_vec()).unwrap())
    };
    let text = text.strip_suffix('\n').expect("the mark of the end");
    text.lines().map(line).collect()
}

fn all() -> Query {
    Query {
        container: "web".into(),
        tail: None,
        since_us: None,
        until_us: None,
        stream: None,
        follow: false,
        asked_by: None,
    }
}

/// A log whose frames are lines, parts of lines and ends of pipes, a microsecond apart. What it has.
fn random_log(directory: &std::path::Path, random: &mut Random) -> (Log, Vec<Told>) {
    let mut log = Log::load(directory.join("web")).unwrap();
    let mut told: Vec<Told> = Vec::new();
    let mut unfinished: [Option<(u64, String)>; 2] = [None, None];
    for time_us in 10..10 + random.below(150) {
        let stream = [Stream::Stdout, Stream::Stderr][usize::from(random.below(4) == 0)];
        let open = &mut unfinished[crate::table::place(stream)];
        if random.below(20) == 0 {
            log.append(Kind::Ended(stream), b"", 200, at(time_us)).unwrap();
            told.extend(open.take().map(|(time_us, text)| (time_us, stream, text)));
            continue;
        }
        let mut payload = String::new();
        for number in 0..=random.below(4) {
            let (word, ends) = (format!("{time_us}.{number} "), random.below(3) > 0);
            payload.push_str(&word);
            open.get_or_insert((time_us, String::new())).1.push_str(&word);
            if ends {
                payload.push('\n');
                told.extend(open.take().map(|(time_us, text)| (time_us, stream, text)));
            }
        }
        log.append(Kind::Output(stream), payload.as_bytes(), 200, at(time_us)).unwrap();
    }
    for (stream, open) in [Stream::Stdout, Stream::Stderr].into_iter().zip(unfinished) {
        told.extend(open.map(|(time_us, text)| (time_us, stream, text)));
    }
    for start in log.take_full() {
        if random.below(2) == 0 {
            compress(&mut log, start);
        }
    }
    (log, told)
}

#[test]
fn an_answer_has_the_wanted_lines_and_no_others() {
    for seed in 1..150 {
        let mut random = Random(seed * 0x9E37_79B9);
        let directory = tempfile::tempdir().unwrap();
        let (mut log, lines) = random_log(directory.path(), &mut random);
        assert_eq!(told(&mut log, &all()), lines, "seed {seed}");
        for _ in 0..20 {
            let mut maybe = |end: u64| (random.below(2) == 0).then(|| random.below(end));
            let (tail, since_us, until_us) = (maybe(12), maybe(180), maybe(180));
            let stream = maybe(2).map(|stream| [Stream::Stdout, Stream::Stderr][stream as usize]);
            let query = Query { tail, since_us, until_us, stream, ..all() };
            let wanted = |line: &&Told| {
                since_us.is_none_or(|since| line.0 >= since)
                    && until_us.is_none_or(|until| line.0 <= until)
                    && stream.is_none_or(|stream| line.1 == stream)
            };
            let mut expected: Vec<Told> = lines.iter().filter(wanted).cloned().collect();
            if let Some(tail) = tail {
                expected.drain(..expected.len().saturating_sub(tail as usize));
            }
            assert_eq!(told(&mut log, &query), expected, "seed {seed}: {query:?}");
        }
    }
}

#[test]
fn lines_from_before_the_clock_was_set_are_not_newer_than_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::load(directory.path().join("web")).unwrap();
    for (time_us, text) in [(900, "wrong\n"), (100, "old\n"), (200, "new\n")] {
        log.append(Kind::Output(Stream::Stdout), text.as_bytes(), 30, at(time_us)).unwrap();
    }
    let since = |log: &mut Log, since_us| told(log, &Query { since_us: Some(since_us), ..all() }).len();
    assert_eq!((since(&mut log, 150), since(&mut log, 100), since(&mut log, 901)), (1, 3, 0));
}

#[test]
fn the_last_line_of_the_kernels_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::load(directory.path().join("kernel")).unwrap();
    assert_eq!(last_origin(&mut log), None);
    for number in 0..9u64 {
        let payload = [7u64.to_le_bytes(), number.to_le_bytes()].concat();
        log.append(Kind::Record(Stream::Stdout), &payload, 100, at(number)).unwrap();
        log.append(Kind::Ended(Stream::Stdout), b"", 100, at(number)).unwrap();
        assert_eq!(last_origin(&mut log), Some(Origin { boot: 7, number }));
    }
}
