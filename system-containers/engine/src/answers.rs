//! Answers of the engine's workers to clients: lines of JSON through a pipe.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use berth_control::ANSWER_END;
use serde::Serialize;

/// Writes values, one a line, on a thread of its own: a client may read slowly, and holds nobody up.
pub fn write<T: Serialize>(pipe: OwnedFd, values: &[T]) {
    let text = text(values);
    write_found(pipe, || text);
}

/// The same of values that are found out on that thread.
pub fn find<T: Serialize>(pipe: OwnedFd, find: impl FnOnce() -> Vec<T> + Send + 'static) {
    write_found(pipe, || text(&find()));
}

fn text<T: Serialize>(values: &[T]) -> Vec<u8> {
    let mut text = Vec::new();
    for value in values {
        // They are plain data, which always has a JSON form.
        text.extend(serde_json::to_vec(value).unwrap_or_default());
        text.push(b'\n');
    }
    text.extend_from_slice(ANSWER_END);
    text
}

fn write_found(pipe: OwnedFd, text: impl FnOnce() -> Vec<u8> + Send + 'static) {
    let work = move || {
        // Nobody may be reading any more.
        let _ = File::from(pipe).write_all(&text());
    };
    if let Err(error) = std::thread::Builder::new().name("answer".to_owned()).spawn(work) {
        eprintln!("engine: answer a client: {error}");
    }
}
