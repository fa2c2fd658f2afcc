//! What of PID 1's own program is in its memory.

use nix::errno::Errno;
use nix::libc;

/// Takes the program's code out of this process's page tables; what is used again comes back from the page cache, some
/// pages around it with each fault. Data is not touched.
///
/// # Errors
/// If /proc/self/maps does not show the code, or madvise(2) fails.
pub fn let_go_of_code() -> nix::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|_| Errno::ENOENT)?;
    let (start, end) = maps.lines().find_map(code).ok_or(Errno::ENOENT)?;
    let length = end.checked_sub(start).ok_or(Errno::EINVAL)?;
    // SAFETY: the range is a private mapping of a file that can be read and executed but was never written (proc(5),
    // /proc/pid/maps), so the pages that come back after MADV_DONTNEED are the same as those that go (madvise(2)).
    Errno::result(unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) }).map(drop)
}

/// The addresses of a mapping of the program's code: `START-END r-xp OFFSET DEVICE INODE PATH`.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let of_a_file = words.nth(2)? != "0";
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_code && of_a_file).then_some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_can_be_executed_and_is_of_a_file() {
        let line = "00319000-00b98000 r-xp 00118000 07:00 164992                             /usr/bin/berth";
        assert_eq!(code(line), Some((0x0031_9000, 0x00b9_8000)));
        assert_eq!(code("00200000-00319000 r--p 00000000 07:00 164992    /usr/bin/berth"), None);
        assert_eq!(code("7ffd317ba000-7ffd317bc000 r-xp 00000000 00:00 0    [vdso]"), None);
        assert_eq!(code(""), None);
    }

    #[test]
    fn the_program_goes_on_without_its_code() {
        assert_eq!(let_go_of_code(), Ok(()));
        assert_eq!(code("1-2 r-xp 0 0:0 1"), Some((1, 2)));
    }
}
