//! When PID 1 has nothing to do, its code need not be in its memory.

use std::time::Duration;

use crate::reactor::Token;

/// Quiet for so long is rest. Long enough that somebody who types commands does not pay for it, and that a burst of
/// events ends with one wake-up more and not with many.
const QUIET: Duration = Duration::from_secs(3);

/// Since when nothing has happened. Between events and after rest has come there is no deadline: at rest PID 1 is not
/// woken by this.
#[derive(Debug, Default)]
pub struct Rest {
    due: Option<Duration>,
}

impl Rest {
    /// These events came, at this time since the boot. None is a deadline that has passed, which is no event.
    pub fn stirred(&mut self, events: &[Token], now: Duration) {
        if !events.is_empty() {
            self.due = Some(now + QUIET);
        }
    }

    /// When rest comes, if nothing happens until then.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Lets go of the code if it comes now.
    pub fn begin(&mut self, now: Duration) {
        if self.comes(now)
            && let Err(error) = crate::sys::memory::let_go_of_code()
        {
            log::warn!("the code of what is over stays in memory: {error}");
        }
    }

    /// Whether it comes now: once after each time that something happened.
    fn comes(&mut self, now: Duration) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_once_and_only_after_quiet() {
        let second = Duration::from_secs(1);
        let mut rest = Rest::default();
        assert!(!rest.comes(100 * second));
        rest.stirred(&[Token::Signals], 100 * second);
        rest.stirred(&[Token::Signals], 102 * second);
        rest.stirred(&[], 104 * second);
        assert_eq!(rest.due(), Some(105 * second));
        assert!(!rest.comes(104 * second));
        assert!(rest.comes(105 * second));
        assert_eq!(rest.due(), None);
        assert!(!rest.comes(200 * second));
    }
}
