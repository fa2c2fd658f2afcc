//! Reading and writing files.

use std::io::SeekFrom;

use serde::Deserialize;
use serde_json::json;

use super::{Arguments, CommandError, Host, decode, encode, read as read_arguments};
use crate::protocol::Answer;

/// What QEMU's agent reads when it is not told how much.
const DEFAULT_COUNT: i64 = 4096;

/// What QEMU's agent refuses to read at once.
const MAXIMUM_COUNT: i64 = 48 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    path: String,
    mode: Option<String>,
}

pub fn open(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let open: Open = read_arguments("guest-file-open", arguments)?;
    let handle = host.files.open(&open.path, open.mode.as_deref().unwrap_or("r"))?;
    Ok(Answer::Return(handle.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    handle: i64,
}

pub fn close(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let of: Handle = read_arguments("guest-file-close", arguments)?;
    host.files.close(of.handle)?;
    Ok(Answer::empty())
}

pub fn flush(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let of: Handle = read_arguments("guest-file-flush", arguments)?;
    host.files.flush(of.handle)?;
    Ok(Answer::empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    handle: i64,
    count: Option<i64>,
}

pub fn read(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: Read = read_arguments("guest-file-read", arguments)?;
    let count = wanted.count.unwrap_or(DEFAULT_COUNT);
    let out_of_range = CommandError::Range { member: "count", value: count };
    let count = u64::try_from(count).ok().filter(|_| count <= MAXIMUM_COUNT).ok_or(out_of_range)?;
    let (bytes, at_end) = host.files.read(wanted.handle, count)?;
    Ok(Answer::Return(json!({ "count": bytes.len(), "buf-b64": encode(&bytes), "eof": at_end })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Write {
    handle: i64,
    buf_b64: String,
    count: Option<i64>,
}

pub fn write(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: Write = read_arguments("guest-file-write", arguments)?;
    let bytes = decode("buf-b64", &wanted.buf_b64)?;
    let written = match wanted.count {
        None => bytes.as_slice(),
        Some(value) => {
            let out_of_range = CommandError::Range { member: "count", value };
            usize::try_from(value).ok().and_then(|count| bytes.get(..count)).ok_or(out_of_range)?
        }
    };
    host.files.write(wanted.handle, written)?;
    Ok(Answer::Return(json!({ "count": written.len(), "eof": false })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    handle: i64,
    offset: i64,
    whence: Whence,
}

/// A number, or a word since QEMU 2.6.
#[derive(Deserialize)]
#[serde(untagged)]
enum Whence {
    Number(i64),
    Word(WhenceWord),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WhenceWord {
    Set,
    Cur,
    End,
}

pub fn seek(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: Seek = read_arguments("guest-file-seek", arguments)?;
    let offset = wanted.offset;
    let to = match wanted.whence {
        Whence::Number(0) | Whence::Word(WhenceWord::Set) => {
            let out_of_range = CommandError::Range { member: "offset", value: offset };
            SeekFrom::Start(u64::try_from(offset).map_err(|_| out_of_range)?)
        }
        Whence::Number(1) | Whence::Word(WhenceWord::Cur) => SeekFrom::Current(offset),
        Whence::Number(2) | Whence::Word(WhenceWord::End) => SeekFrom::End(offset),
        Whence::Number(value) => return Err(CommandError::Range { member: "whence", value }),
    };
    let (position, at_end) = host.files.seek(wanted.handle, to)?;
    Ok(Answer::Return(json!({ "position": position, "eof": at_end })))
}
