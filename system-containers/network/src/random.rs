//! What nobody can guess.

use std::fs;

/// Eight bytes that nobody can guess; the time if the kernel has none to give.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match read {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => u64::try_from(crate::clock::now().as_nanos()).unwrap_or(1),
    }
}
