//! The serial console: kept in memory to be waited on, and in a file to be read by people.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A place in the console's output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark(usize);

#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        // A thread that panicked held no half-made change: bytes are only appended.
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine's serial console.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    input: ChildStdin,
}

impl Console {
    /// Reads `output` to its end in a thread of its own, into `log` as well.
    pub(super) fn new(input: ChildStdin, mut output: ChildStdout, log: &Path) -> Result<Self> {
        // Several machines of one case write one after the other.
        let mut log = File::options().append(true).create(true).open(log).context("open the console's log")?;
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                // A full disk must not hide what the machine says from the case itself.
                let _ = log.write_all(bytes);
                reader.lock().bytes.extend(bytes);
                reader.changed.notify_all();
            }
            reader.lock().ended = true;
            reader.changed.notify_all();
        });
        Ok(Self { shared, input })
    }

    /// The present end, to wait for what comes behind it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.shared.lock().bytes.len())
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_after(Mark::default())
    }

    /// Everything behind `mark`.
    #[must_use]
    pub fn text_after(&self, mark: Mark) -> String {
        let received = self.shared.lock();
        String::from_utf8_lossy(received.bytes.get(mark.0..).unwrap_or_default()).into_owned()
    }

    /// Waits for a line behind `mark` that `wanted` accepts, and returns it without its end. A prompt counts as a
    /// line as soon as it is there.
    ///
    /// # Errors
    /// If the machine ends before, or `limit` is over.
    pub fn wait_for_line(&self, mark: Mark, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut searched = mark.0;
        let mut received = self.shared.lock();
        loop {
            let text = String::from_utf8_lossy(received.bytes.get(searched..).unwrap_or_default());
            if let Some(line) = text.split('\n').map(|line| line.trim_end_matches('\r')).find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            // Whole lines are not searched again.
            let whole = received.bytes.get(searched..).unwrap_or_default().iter().rposition(|byte| *byte == b'\n');
            searched += whole.map_or(0, |end| end + 1);
            if received.ended {
                bail!("the machine ended before the console said what was waited for");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the console did not say what was waited for within {} s", limit.as_secs());
            }
            received = match self.shared.changed.wait_timeout(received, left) {
                Ok((received, _)) => received,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits for a line behind `mark` that contains `text`.
    ///
    /// # Errors
    /// If the machine ends before, or `limit` is over.
    pub fn wait_for(&self, mark: Mark, limit: Duration, text: &str) -> Result<String> {
        self.wait_for_line(mark, limit, |line| line.contains(text)).with_context(|| format!("wait for {text:?}"))
    }

    /// Waits until QEMU has closed the console, which it does when it ends; false if it has not within `limit`.
    #[must_use]
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), limit, |received| !received.ended);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.ended, |(received, _)| received.ended)
    }

    /// Types `text`.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.input.write_all(text.as_bytes()).context("type on the console")
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn console(script: &str) -> (std::process::Child, Console) {
        let mut shell = Command::new("sh");
        let mut child = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (child, Console::new(input, output, Path::new("/dev/null")).unwrap())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_line_is_waited_for_and_found_once_behind_a_mark() {
        let (mut child, mut console) = console("echo one; read word; printf \"got $word\\r\\n$ \"; read end");
        console.wait_for(Mark::default(), LONG, "one").unwrap();
        let mark = console.mark();
        console.type_text("two\n").unwrap();
        assert_eq!(console.wait_for_line(mark, LONG, |line| line.starts_with("got")).unwrap(), "got two");
        assert_eq!(console.wait_for(mark, LONG, "$").unwrap(), "$ ");
        assert!(console.wait_for(mark, Duration::from_millis(10), "one").is_err());
        console.type_text("end\n").unwrap();
        assert!(console.wait_for(mark, LONG, "never").unwrap_err().root_cause().to_string().contains("ended"));
        assert!(console.wait_for_end(LONG));
        child.wait().unwrap();
    }
}
