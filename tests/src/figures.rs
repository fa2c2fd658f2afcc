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
    /// The bar it has to stay under, if there is one.
    pub bar: Option<&'static str>,
}

impl Figure {
    /// A figure without a bar.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), bar: None }
    }

    /// The same with a bar.
    #[must_use]
    pub fn with_bar(self, bar: &'static str) -> Self {
        Self { bar: Some(bar), ..self }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:<48} {:>14}", self.name, self.value)?;
        self.bar.map_or(Ok(()), |bar| write!(formatter, "   bar: {bar}"))
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
    fn the_median_is_the_middle_of_the_sorted() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[4, 1, 2, 3]), Some(2));
        assert_eq!(median::<u8>(&[]), None);
    }
}
