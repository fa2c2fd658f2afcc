//! Reading from what has a buffer of its own.

use std::io::{self, BufRead};

/// What [`io::Read::read`] does for a reader whose work is done by [`BufRead::fill_buf`].
pub fn read(from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = from.fill_buf()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    from.consume(count);
    Ok(count)
}
