//! The kernel command line's `berth.` keys.
//!
//! | key | values | meaning |
//! |---|---|---|
//! | `berth.slot` | `a`, `b` | which root is running; set by the bootloader |
//! | `berth.state` | `disk` (default), `memory` | `memory` leaves every disk alone and forgets all at power-off |
//! | `berth.configuration` | `last` (default), `none` | `none` boots without any configuration, to get at a machine that one has broken |
//! | `berth.faults` | `off` (default), `on` | `on` lets signals crash PID 1, each by another defect (`machine/faults.rs`), so that tests see what follows |
//! | `berth.output` | `logs` (default), `kernel` | `kernel` sends what containers print to the kernel's log, for a boot that does not get as far as `berth logs` |
//!
//! An unknown key or value is reported and otherwise ignored: a boot never fails for a typing mistake.

/// What the keys say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The running slot, empty if not said.
    pub slot: String,
    /// Keep the state in memory.
    pub state_in_memory: bool,
    /// Do not load a configuration.
    pub no_configuration: bool,
    /// Containers print into the kernel's log.
    pub output_to_kernel: bool,
    /// Some signals are defects.
    pub faults: bool,
    /// What was not understood, a sentence each.
    pub complaints: Vec<String>,
}

impl CommandLine {
    /// Reads the keys out of a line as /proc/cmdline has it. Values with spaces stand in double quotes, as everywhere
    /// on this line (Documentation/admin-guide/kernel-parameters.rst).
    pub fn parse(line: &str) -> Self {
        let mut parsed = Self::default();
        for word in words(line) {
            let Some(rest) = word.strip_prefix("berth.") else { continue };
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            match (key, value) {
                ("slot", "a" | "b") => parsed.slot = value.to_owned(),
                ("state", "disk") => parsed.state_in_memory = false,
                ("state", "memory") => parsed.state_in_memory = true,
                ("configuration", "last") => parsed.no_configuration = false,
                ("configuration", "none") => parsed.no_configuration = true,
                ("output", "logs") => parsed.output_to_kernel = false,
                ("output", "kernel") => parsed.output_to_kernel = true,
                ("faults", "off") => parsed.faults = false,
                ("faults", "on") => parsed.faults = true,
                ("slot" | "state" | "configuration" | "output" | "faults", _) => {
                    parsed.complaints.push(format!("kernel command line: berth.{key} cannot be `{value}`"));
                }
                _ => parsed.complaints.push(format!("kernel command line: there is no key berth.{key}")),
            }
        }
        parsed
    }
}

/// The line's words, with double quotes taken off.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            space if space.is_whitespace() && !quoted => words.push(String::new()),
            other => {
                if let Some(word) = words.last_mut() {
                    word.push(other);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_among_the_kernels_own() {
        let parsed = CommandLine::parse("root=PARTUUID=1 ro quiet berth.slot=b \"berth.state=memory\" console=ttyS0\n");
        assert_eq!(parsed.slot, "b");
        assert!(parsed.state_in_memory);
        assert!(parsed.complaints.is_empty());
    }

    #[test]
    fn mistakes_are_told_and_change_nothing() {
        let parsed = CommandLine::parse("berth.slot=c berth.sate=memory berth.state");
        assert_eq!(parsed.slot, "");
        assert!(!parsed.state_in_memory);
        assert_eq!(parsed.complaints.len(), 3, "{:?}", parsed.complaints);
    }
}
