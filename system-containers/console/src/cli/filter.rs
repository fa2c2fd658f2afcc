//! `--filter KEY=VALUE` as docker has it: values of one key are alternatives, but labels, and each key that
//! is there must fit.

use std::collections::BTreeMap;

/// Reads a filter whose key is one of these.
pub fn parse<K: Copy>(text: &str, keys: &[(&str, K)]) -> Result<(K, String), String> {
    let (word, value) = text.split_once('=').unwrap_or((text, ""));
    let known = keys.iter().find(|(key, _)| *key == word);
    known.map(|(_, key)| (*key, value.to_owned())).ok_or_else(|| {
        let words: Vec<String> = keys.iter().map(|(key, _)| format!("{key}=…")).collect();
        format!("a filter is {}", words.join(" or "))
    })
}

/// Whether no filter has this key, or one whose value fits.
pub fn fits<K: PartialEq>(filters: &[(K, String)], key: &K, fits: impl Fn(&str) -> bool) -> bool {
    let mut values = filters.iter().filter(|(other, _)| other == key).map(|(_, value)| value.as_str()).peekable();
    values.peek().is_none() || values.any(fits)
}

/// Whether each filter with this key has a value that fits.
pub fn all_fit<K: PartialEq>(filters: &[(K, String)], key: &K, fits: impl Fn(&str) -> bool) -> bool {
    filters.iter().filter(|(other, _)| other == key).all(|(_, value)| fits(value))
}

/// What `label=` asks for: KEY, or KEY=VALUE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: Option<String>,
}

impl Label {
    /// As it is written behind `label=`.
    pub fn new(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Self { key: text.to_owned(), value: None },
        }
    }

    /// Whether one of these is like that.
    pub fn is_among(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[(&str, u8)] = &[("name", 1), ("status", 2)];

    #[test]
    fn a_filter_is_a_known_key_and_a_value() {
        assert_eq!(parse("name=a=b", KEYS), Ok((1, "a=b".to_owned())));
        assert_eq!(parse("status", KEYS), Ok((2, String::new())));
        assert_eq!(parse("size=1", KEYS), Err("a filter is name=… or status=…".to_owned()));
    }

    #[test]
    fn values_of_one_key_are_alternatives() {
        let filters = [(1, "a".to_owned()), (1, "b".to_owned())];
        assert!(fits(&filters, &1, |value| value == "b"));
        assert!(!fits(&filters, &1, |value| value == "c"));
        assert!(fits(&filters, &2, |_| false));
    }
}
