//! The figures of SPECIFICATION.md: what the image weighs, how long it boots, what it needs.
//!
//! A time is meaningful only as a ratio to one measured beside it: the same machine, the same minute, in turns.

pub mod boot;
pub mod host;
mod library;
pub mod many;
pub mod memory;
pub mod sizes;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value with its unit.
    pub value: String,
    /// What it has to keep to, if there is something.
    pub bar: Option<Bar>,
}

/// What a figure has to keep to, in the unit of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Figure {
    /// A figure without a bar.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), bar: None }
    }

    /// The same with a bar that it may not pass.
    #[must_use]
    pub fn at_most(self, limit: f64) -> Self {
        Self { bar: Some(Bar::AtMost(limit)), ..self }
    }

    /// The same with a bar that it has to reach.
    #[must_use]
    pub fn at_least(self, limit: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(limit)), ..self }
    }

    /// The number that the value begins with, and its unit behind it.
    fn measured(&self) -> Option<(f64, &str)> {
        let (number, unit) = self.value.split_once(' ').unwrap_or((&self.value, ""));
        Some((number.parse().ok()?, unit))
    }

    /// Whether it has a bar and does not keep to it, as it is printed. A value that is no number does not.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        let keeps = |bar: Bar| match (bar, self.measured()) {
            (Bar::AtMost(limit), Some((value, _))) => value <= limit,
            (Bar::AtLeast(limit), Some((value, _))) => value >= limit,
            (_, None) => false,
        };
        self.bar.is_some_and(|bar| !keeps(bar))
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:<48} {:>14}", self.name, self.value)?;
        let (word, limit) = match self.bar {
            None => return Ok(()),
            Some(Bar::AtMost(limit)) => ("at most", limit),
            Some(Bar::AtLeast(limit)) => ("at least", limit),
        };
        let unit = self.measured().map_or("", |(_, unit)| unit);
        let space = if unit.is_empty() { "" } else { " " };
        let outcome = if self.is_missed() { "missed" } else { "met" };
        write!(formatter, "   bar: {word} {limit}{space}{unit}, {outcome}")
    }
}

/// `bytes` in MiB.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The middle of `values`, the lower one of two; `None` if there are none.
#[must_use]
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|left, right| left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bar_does_not_look_like_a_met_one() {
        let bar = |figure: &Figure| figure.to_string().split_once("   bar: ").map(|(_, bar)| bar.to_owned());
        let size = |value: &str| Figure::new("root file system", value).at_most(6.0);
        let share = |value: &str| Figure::new("ratio", value).at_least(0.7);
        for (figure, expected) in [
            (size("5.99 MiB"), "at most 6 MiB, met"),
            (size("6.00 MiB"), "at most 6 MiB, met"),
            (size("6.01 MiB"), "at most 6 MiB, missed"),
            (share("0.70"), "at least 0.7, met"),
            (share("0.69"), "at least 0.7, missed"),
            (size("unknown"), "at most 6, missed"),
        ] {
            assert_eq!(figure.is_missed(), expected.ends_with("missed"), "{figure}");
            assert_eq!(bar(&figure).as_deref(), Some(expected));
        }
        let plain = Figure::new("kernel", "9 MB");
        assert!(!plain.is_missed() && !plain.to_string().contains("bar"));
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[4, 1, 2, 3]), Some(2));
        assert_eq!(median::<u8>(&[]), None);
    }
}
