//! A log's segments, whole, compressed, torn and gone.

use super::*;
use crate::frame::Frames;
use crate::sealed::seal;
use std::io::Seek;

const OUT: Kind = Kind::Output(Stream::Stdout);
/// Two frames of a few bytes.
const SIZE: u64 = 40;

/// A moment by the wall's clock.
pub fn at(wall_us: u64) -> Moment {
    Moment { wall_us, monotonic: Instant::now() }
}

fn text(log: &Log, mut position: u64) -> String {
    let mut text = Vec::new();
    let mut opened = Opened::default();
    while let Some(piece) = log.piece(position, &mut opened) {
        Frames::of(&piece.bytes).for_each(|frame| text.extend_from_slice(frame.payload));
        position = piece.at + piece.bytes.len() as u64;
    }
    String::from_utf8(text).unwrap()
}

fn filled(directory: &Path) -> Log {
    let mut log = Log::load(directory.join("web")).unwrap();
    for number in 0..10 {
        log.append(OUT, format!("{number}\n").as_bytes(), SIZE, at(number)).unwrap();
    }
    log
}

/// Compresses a segment where it is.
pub fn compress(log: &mut Log, start: u64) {
    let directory = log.directory.clone();
    let open = log.open_before(log.segments.partition_point(|segment| segment.start < start));
    let segment = log.segment_mut(start).unwrap();
    let path = segment.path(&directory);
    let mut sealed = seal(&fs::read(&path).unwrap(), open);
    sealed.rewind().unwrap();
    segment.form = Form::Sealed;
    io::copy(&mut sealed, &mut File::create(segment.path(&directory)).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn segments_are_one_sequence_also_when_some_are_compressed_or_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = filled(directory.path());
    let full = log.take_full();
    assert_eq!(full, [0, 54, 108]);
    assert_eq!(text(&log, 0), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    compress(&mut log, 54);
    assert_eq!(text(&log, 18), "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_eq!(text(&log, 72), "4\n5\n6\n7\n8\n9\n");
    assert_eq!(log.remove_oldest(), Some(54));
    assert_eq!((text(&log, 0).as_str(), log.beginning()), ("3\n4\n5\n6\n7\n8\n9\n", 54));
    while log.remove_oldest().is_some() {}
    assert_eq!(text(&log, 0), "9\n", "what is written to stays");
}

#[test]
fn a_loaded_log_goes_on_where_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = filled(directory.path());
    compress(&mut log, 0);
    let mut log = Log::load(directory.path().join("web")).unwrap();
    assert_eq!(log.take_full(), [54, 108]);
    log.append(OUT, b"more\n", SIZE, at(1)).unwrap();
    assert_eq!(text(&log, 0), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nmore\n");
    log.close();
    let start = *log.take_full().last().unwrap();
    compress(&mut log, start);
    let mut log = Log::load(directory.path().join("web")).unwrap();
    assert_eq!(log.end(), 10 * 18 + 21);
    log.append(OUT, b"again\n", SIZE, at(1)).unwrap();
    assert!(text(&log, 0).ends_with("9\nmore\nagain\n"));
}

#[test]
fn a_last_file_that_power_tore_is_given_up_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = filled(directory.path());
    log.close();
    compress(&mut log, 162);
    File::options().write(true).open(log.segments[3].path(&log.directory)).unwrap().set_len(9).unwrap();
    let mut log = Log::load(directory.path().join("web")).unwrap();
    assert_eq!(log.end(), 162);
    assert_eq!(text(&log, 0), "0\n1\n2\n3\n4\n5\n6\n7\n8\n");
}

#[test]
fn a_file_that_is_missing_or_broken_in_the_middle_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = filled(directory.path());
    compress(&mut log, 54);
    fs::write(log.segments[1].path(&log.directory), b"junk").unwrap();
    assert_eq!(text(&log, 0), "0\n1\n2\n6\n7\n8\n9\n");
}

#[test]
fn what_was_dropped_is_counted_and_told() {
    let directory = tempfile::tempdir().unwrap();
    // A file where the folder should be.
    fs::write(directory.path().join("web"), "").unwrap();
    let mut log = Log::load(directory.path().join("web")).unwrap();
    assert!(log.append(OUT, b"a\n", SIZE, at(1)).is_err());
    log.lose(Dropped { lines: 1, bytes: 2 });
    log.lose(Dropped { lines: 2, bytes: 9 });
    assert_eq!(log.dropped(), Dropped { lines: 3, bytes: 11 });
    fs::remove_file(directory.path().join("web")).unwrap();
    log.append(OUT, b"b\n", SIZE, at(2)).unwrap();
    assert_eq!(log.dropped(), Dropped::default());
    let bytes = log.piece(0, &mut Opened::default()).unwrap().bytes;
    let frames: Vec<_> = Frames::of(&bytes).collect();
    assert_eq!(frames[0].header.kind, Kind::Dropped);
    assert_eq!(Dropped::decode(frames[0].payload), Dropped { lines: 3, bytes: 11 });
    assert_eq!(frames[1].payload, b"b\n");
}
