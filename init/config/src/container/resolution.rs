//! Whom a container asks for names, and how: what its /etc/resolv.conf says in place of the machine's.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::names::{HostName, NameError, check_characters, check_length};
use crate::text::checked_string;

checked_string! {
    /// A domain in which names are looked for, or "." alone, which is docker's word for none.
    SearchDomain, NameError, check_search_domain, "a domain such as \"example.org\", or \".\" for none"
}

fn check_search_domain(text: &str) -> Result<(), NameError> {
    if text == SearchDomain::NONE { Ok(()) } else { text.parse::<HostName>().map(drop) }
}

impl SearchDomain {
    /// No domain at all.
    pub const NONE: &str = ".";
}

checked_string! {
    /// A word of resolv.conf(5)'s `options`.
    ResolverOption, NameError, check_option, "an option of resolv.conf such as \"timeout:1\""
}

fn check_option(text: &str) -> Result<(), NameError> {
    check_length(text, 63)?;
    check_characters(text, |character| character.is_ascii_graphic())
}

/// What a container says of names; what is empty is as it is for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Who is asked.
    pub servers: Vec<IpAddr>,
    /// Domains in which names are looked for.
    pub search: Vec<SearchDomain>,
    /// Words of `options`.
    pub options: Vec<ResolverOption>,
}

impl Resolution {
    /// The text of a resolv.conf(5) with these servers, and the domains and options of others where it says nothing.
    pub fn text(&self, servers: &[String], search: &[String], options: &[String]) -> String {
        let own: Vec<String> = self.search.iter().map(ToString::to_string).collect();
        let mut search = if own.is_empty() { search } else { own.as_slice() }.to_vec();
        search.retain(|domain| domain != SearchDomain::NONE);
        let own: Vec<String> = self.options.iter().map(ToString::to_string).collect();
        let options = if own.is_empty() { options } else { own.as_slice() };
        let line = |word: &str, values: &[String]| match values {
            [] => String::new(),
            values => format!("{word} {}\n", values.join(" ")),
        };
        let servers: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        format!("{servers}{}{}", line("search", &search), line("options", options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_it_says_nothing_of_is_as_for_all() {
        let (servers, search, options) = (texts(&["192.0.2.1"]), texts(&["a.org", "b.org"]), texts(&["ndots:0"]));
        let mut own = Resolution::default();
        let text = |own: &Resolution| own.text(&servers, &search, &options);
        assert_eq!(text(&own), "nameserver 192.0.2.1\nsearch a.org b.org\noptions ndots:0\n");
        own.search = vec!["own.org".parse().unwrap()];
        own.options = vec!["timeout:1".parse().unwrap(), "rotate".parse().unwrap()];
        assert_eq!(text(&own), "nameserver 192.0.2.1\nsearch own.org\noptions timeout:1 rotate\n");
        own.search = vec![".".parse().unwrap()];
        assert_eq!(text(&own), "nameserver 192.0.2.1\noptions timeout:1 rotate\n");
    }

    #[test]
    fn a_line_of_the_file_cannot_be_left() {
        for text in ["", "a b", "rotate\nnameserver 192.0.2.9", "\t"] {
            assert!(text.parse::<ResolverOption>().is_err(), "{text:?}");
            assert!(text.parse::<SearchDomain>().is_err(), "{text:?}");
        }
    }
}
