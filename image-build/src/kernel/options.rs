//! The options that the fragments ask for, and whether a finished .config has them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// What was asked for: symbol to value, `n` for "is not set".
#[derive(Debug, Default, Clone)]
pub struct Options {
    wanted: BTreeMap<String, Wanted>,
}

#[derive(Debug, Clone)]
struct Wanted {
    value: String,
    topic: String,
}

impl Options {
    /// Adds a fragment.
    ///
    /// # Errors
    /// If a line is neither an option nor a comment, or an option was asked for before: a second mention is a
    /// contradiction or a duplicate, and both mislead the reader.
    pub fn add(&mut self, topic: &str, text: &str) -> Result<()> {
        for (number, line) in (1..).zip(text.lines()) {
            let Some((symbol, value)) = parse(line) else {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                bail!("{topic}.config:{number}: neither an option nor a comment: {line}");
            };
            if let Some(earlier) = self.wanted.get(symbol) {
                bail!("{topic}.config:{number}: {symbol} is asked for in {}.config already", earlier.topic);
            }
            self.wanted.insert(symbol.to_owned(), Wanted { value: value.to_owned(), topic: topic.to_owned() });
        }
        Ok(())
    }

    /// All options in the form that KCONFIG_ALLCONFIG takes, sorted.
    pub fn text(&self) -> String {
        let lines = self.wanted.iter().map(|(symbol, wanted)| match wanted.value.as_str() {
            "n" => format!("# {symbol} is not set\n"),
            value => format!("{symbol}={value}\n"),
        });
        lines.collect()
    }

    /// The options that `config` has not as they were asked for, one line each.
    pub fn missing_from(&self, config: &str) -> Vec<String> {
        let actual: BTreeMap<&str, &str> = config.lines().filter_map(parse).collect();
        let wrong = self.wanted.iter().filter_map(|(symbol, wanted)| {
            let value = actual.get(symbol.as_str()).copied().unwrap_or("n");
            let Wanted { value: asked, topic } = wanted;
            (value != asked).then(|| format!("{symbol}: {topic}.config asks for {asked}, got {value}"))
        });
        wrong.collect()
    }
}

fn parse(line: &str) -> Option<(&str, &str)> {
    if let Some(symbol) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return symbol.starts_with("CONFIG_").then_some((symbol, "n"));
    }
    line.split_once('=').filter(|(symbol, _)| symbol.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let mut options = Options::default();
        options.add("topic", text).unwrap();
        options
    }

    #[test]
    fn an_option_that_was_dropped_is_named() {
        let options = options("# why\nCONFIG_A=y\nCONFIG_B=17\n# CONFIG_C is not set\n");
        assert!(options.missing_from("CONFIG_A=y\nCONFIG_B=17\n").is_empty());
        let missing = options.missing_from("# CONFIG_A is not set\nCONFIG_B=18\nCONFIG_C=y\n");
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert_eq!(missing[0], "CONFIG_A: topic.config asks for y, got n");
    }

    #[test]
    fn asking_twice_is_refused() {
        let mut options = options("CONFIG_A=y\n");
        let error = options.add("other", "\nCONFIG_A=y\n").unwrap_err().to_string();
        assert_eq!(error, "other.config:2: CONFIG_A is asked for in topic.config already");
    }

    #[test]
    fn a_line_that_is_neither_option_nor_comment_is_refused() {
        assert!(Options::default().add("topic", "CONFIG_A y\n").is_err());
    }
}
