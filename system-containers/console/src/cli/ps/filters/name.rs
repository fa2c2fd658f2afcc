//! A name, or a part of one, as `--filter name=` takes it.
//!
//! Docker takes a regular expression. Names have letters, digits, `_`, `-` and `.` alone, so a part of one, `^` for its
//! beginning and `$` for its end are what is used of that. Anything else is refused: a filter that never fits would say that
//! there is no such container.

use std::str::FromStr;

/// What a name must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    part: String,
    from_beginning: bool,
    to_end: bool,
}

impl Name {
    /// Whether a container of this name is meant.
    pub fn is_met_by(&self, name: &str) -> bool {
        match (self.from_beginning, self.to_end) {
            (true, true) => name == self.part,
            (true, false) => name.starts_with(&self.part),
            (false, true) => name.ends_with(&self.part),
            (false, false) => name.contains(&self.part),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let after = text.strip_prefix('^');
        // Docker's own names begin with a slash, and people write it.
        let part = after.map_or(text, |after| after.strip_prefix('/').unwrap_or(after));
        let before = part.strip_suffix('$');
        let part = before.unwrap_or(part);
        if let Some(other) = part.chars().find(|letter| !letter.is_ascii_alphanumeric() && !"_-.".contains(*letter)) {
            return Err(format!(
                "no name has {other:?}: name= is a part of a name, with ^ before its beginning and $ behind its end"
            ));
        }
        Ok(Self { part: part.to_owned(), from_beginning: after.is_some(), to_end: before.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_may_be_its_beginning_or_its_end() {
        for (filter, expected) in [
            ("web", [true, true, true]),
            ("^web", [true, true, false]),
            ("web$", [true, false, true]),
            ("^web$", [true, false, false]),
            ("^/web$", [true, false, false]),
            ("", [true, true, true]),
        ] {
            let name: Name = filter.parse().unwrap();
            assert_eq!(["web", "web-1", "my.web"].map(|one| name.is_met_by(one)), expected, "{filter}");
        }
    }

    #[test]
    fn what_no_name_has_is_refused() {
        for filter in ["web|db", "web.*", "/web", "^^web", "w[eb]"] {
            assert!(filter.parse::<Name>().unwrap_err().contains("^ before its beginning"), "{filter}");
        }
    }
}
