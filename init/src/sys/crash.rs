//! Catching the signals that a defect raises, and becoming the next program even then.
//!
//! Everything that a signal handler needs is laid out beforehand in [`Way`]: it must not allocate, lock or format.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_void};
use nix::Error;

/// What a defect raises (signal(7)).
pub const SIGNALS: [(c_int, &str); 6] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGSYS, "SIGSYS"),
];

/// Room for the handler, which must not need the stack that may have overflowed. Several times MINSIGSTKSZ.
const STACK: usize = 64 * 1024;

/// How this process becomes its next program.
#[derive(Debug)]
pub struct Way {
    /// The file that is written to as the last thing.
    record: RawFd,
    /// Where in it, in bytes.
    end: AtomicU64,
    /// Everything above is closed by the exec.
    highest: fn() -> i32,
    /// Addresses of texts that are never freed, as execve(2) wants them.
    arguments: Vec<usize>,
    environment: Vec<usize>,
    /// What is written for each of [`SIGNALS`].
    last_words: Vec<(c_int, Vec<u8>)>,
    /// One byte that is 1 here and 0 in every forked child.
    mark: usize,
}

static WAY: OnceLock<Way> = OnceLock::new();

impl Way {
    /// To the program of /proc/self/exe, with these arguments and this process's environment.
    pub fn new(
        record: RawFd,
        highest: fn() -> i32,
        arguments: Vec<CString>,
        last_words: Vec<(c_int, Vec<u8>)>,
    ) -> nix::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let variables: Vec<CString> = std::env::vars_os()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
            .collect();
        let addresses = |texts: Vec<CString>| {
            texts.into_iter().map(|text| text.into_raw().expose_provenance()).chain([0]).collect::<Vec<_>>()
        };
        let (arguments, environment) = (addresses(arguments), addresses(variables));
        let mark = page_that_children_lack()?;
        Ok(Self { record, end: AtomicU64::new(0), highest, arguments, environment, last_words, mark })
    }
}

/// A page with a 1 at its beginning that is all zeroes in a child: MADV_WIPEONFORK (madvise(2)).
fn page_that_children_lack() -> nix::Result<usize> {
    const PAGE: usize = 4096;
    // SAFETY: mmap(2) of new anonymous memory at an address of the kernel's choice touches no memory that is in use.
    let page = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return Err(Error::last());
    }
    // SAFETY: madvise(2) with this advice changes nothing in this process, and the page is ours.
    Error::result(unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) })?;
    // SAFETY: the page has just been made, is writable, and is never unmapped; nobody else knows of it.
    unsafe { page.cast::<u8>().write(1) };
    Ok(page.expose_provenance())
}

/// Catches [`SIGNALS`] from now on. Only the first call has an effect.
pub fn arm(way: Way) -> nix::Result<()> {
    if WAY.set(way).is_err() {
        return Ok(());
    }
    let memory = Box::leak(vec![0_u8; STACK].into_boxed_slice()).as_mut_ptr().cast();
    let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: STACK };
    // SAFETY: sigaltstack(2) keeps the address of the stack, which has been leaked and so stays for ever.
    Error::result(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) })?;
    for (signal, _) in SIGNALS {
        // SAFETY: all-zero is a valid sigaction: no flags, an empty mask, the default action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_flags = libc::SA_ONSTACK;
        action.sa_sigaction = crashed as extern "C" fn(c_int) as usize;
        // SAFETY: sigaction(2) reads the structure, which outlives the call; the handler has the type that goes with
        // flags without SA_SIGINFO, and calls async-signal-safe functions only (signal-safety(7)).
        Error::result(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

/// What was written into the record so far is this long.
pub fn set_end(end: u64) {
    if let Some(way) = WAY.get() {
        way.end.store(end, Ordering::Relaxed);
    }
}

/// Whether this is a child of the process that called [`arm`].
pub fn is_child() -> bool {
    // SAFETY: `mark` is the address of a page that was mapped for ever, here as in every child.
    WAY.get().is_some_and(|way| unsafe { std::ptr::with_exposed_provenance::<u8>(way.mark).read_volatile() } == 0)
}

/// Whether everything up to this number, but for the first three, is closed by an exec. Async-signal-safe.
pub fn close_on_exec(highest: RawFd, closed: bool) {
    let flags = if closed { libc::FD_CLOEXEC } else { 0 };
    for number in 3..=highest {
        // SAFETY: F_SETFD touches no memory, and is an error for a number that is no descriptor.
        unsafe { libc::fcntl(number, libc::F_SETFD, flags) };
    }
}

/// Becomes the next program, this file's or the same, with these as the record's last bytes. Returns the reason if that
/// is not possible.
pub fn leave(last_words: &[u8], program: Option<BorrowedFd<'_>>) -> Error {
    let Some(way) = WAY.get() else { return Error::ENOSYS };
    let end = libc::off_t::try_from(way.end.load(Ordering::Relaxed)).unwrap_or_default();
    // A record that cannot be written or sealed is as good as it was.
    // SAFETY: pwrite(2) reads the bytes, which are borrowed for the length of this function.
    unsafe { libc::pwrite(way.record, last_words.as_ptr().cast::<c_void>(), last_words.len(), end) };
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS touches no memory of ours.
    unsafe { libc::fcntl(way.record, libc::F_ADD_SEALS, seals) };
    close_on_exec((way.highest)().max(way.record), false);
    let error = execute(way, program);
    // Nothing has become of it: the descriptors are this program's alone again.
    close_on_exec((way.highest)().max(way.record), true);
    error
}

/// Executes this file or the same program. Returns the reason if that is not possible.
fn execute(way: &Way, program: Option<BorrowedFd<'_>>) -> Error {
    let (arguments, environment) = (way.arguments.as_ptr(), way.environment.as_ptr());
    match program {
        // SAFETY: execveat(2) with AT_EMPTY_PATH reads an empty text, and two arrays of addresses of NUL-terminated texts
        // that end in 0. The texts are owned by `way`, which is never dropped.
        Some(program) => unsafe {
            let number = program.as_raw_fd();
            libc::syscall(libc::SYS_execveat, number, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH);
        },
        // SAFETY: execve(2) reads a path and the same arrays; usize and a pointer have the same layout.
        None => unsafe {
            libc::execve(c"/proc/self/exe".as_ptr(), arguments.cast(), environment.cast());
        },
    }
    Error::last()
}

/// Reads a byte of the page at address 0: a defect, to see what becomes of one.
pub fn read_null() -> u8 {
    // The address is that of a field behind the first of a structure at no address, and nothing that the compiler knows.
    let address = std::hint::black_box(8);
    // SAFETY: there is none, which is what this is for. The page is not mapped (vm.mmap_min_addr), so that the processor
    // refuses the read, and the kernel raises SIGSEGV.
    unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

/// Calls itself until the stack is used up: another defect.
pub fn descend(depth: u64) -> u64 {
    // Each call has something on the stack that the next one could see, so that none takes the place of the one before.
    let here = std::hint::black_box([depth; 64]);
    if std::hint::black_box(false) { depth } else { descend(depth.wrapping_add(1)) ^ here.iter().sum::<u64>() }
}

/// Async-signal-safe.
extern "C" fn crashed(signal: c_int) {
    if !is_child() {
        let words = WAY.get().and_then(|way| way.last_words.iter().find(|(own, _)| *own == signal));
        leave(words.map_or(&[], |(_, words)| words.as_slice()), None);
        // Not to be hoped for. The disks get what they can in this moment, and the machine comes up again by itself.
        // SAFETY: sync(2) touches no memory of ours.
        unsafe { libc::sync() };
        // SAFETY: nor does reboot(2).
        unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    }
    // A child dies of it: the instruction, or abort(3), raises it again.
    // SAFETY: signal(2) with SIG_DFL touches no memory and is async-signal-safe.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    const DEFECT: &str = "BERTH_TEST_DEFECT";
    const RECORD: &str = "BERTH_TEST_RECORD";
    const GONE_ON: &str = "the next program has begun";

    /// How this program becomes one of the tests below, in the thread that its `main` runs in.
    fn only(test: &str) -> Vec<String> {
        let name = format!("sys::crash::tests::{test}");
        ["--ignored", "--nocapture", "--test-threads=1", "--exact", &name].map(str::to_owned).to_vec()
    }

    #[test]
    #[ignore = "ends with the program; `a_fault_leads_to_the_next_program` starts it"]
    fn has_a_defect() {
        use std::os::fd::IntoRawFd;
        let record = std::fs::File::create(std::env::var_os(RECORD).unwrap()).unwrap().into_raw_fd();
        let arguments = std::iter::once("berth".to_owned()).chain(only("goes_on"));
        let arguments = arguments.map(|argument| CString::new(argument).unwrap()).collect();
        let words = SIGNALS.iter().map(|(number, name)| (*number, name.as_bytes().to_vec())).collect();
        arm(Way::new(record, berth_runtime::handover::highest, arguments, words).unwrap()).unwrap();
        match std::env::var(DEFECT).unwrap().as_str() {
            "null" => drop(read_null()),
            _ => drop(std::hint::black_box(descend(0))),
        }
    }

    #[test]
    #[ignore = "is what the program becomes in `has_a_defect`"]
    fn goes_on() {
        println!("{GONE_ON}");
    }

    #[test]
    fn a_fault_leads_to_the_next_program_even_without_a_stack() {
        for defect in ["null", "stack"] {
            let record = tempfile::NamedTempFile::new().unwrap();
            let mut command = Command::new(std::env::current_exe().unwrap());
            let ended =
                command.args(only("has_a_defect")).env(DEFECT, defect).env(RECORD, record.path()).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(said.contains(GONE_ON), "{defect}: signal {:?}: {said}", ended.status.signal());
            assert_eq!(std::fs::read_to_string(record.path()).unwrap(), "SIGSEGV", "{defect}");
        }
    }
}
