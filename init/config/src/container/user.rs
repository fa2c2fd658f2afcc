//! Who a container's process runs as.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is neither a user nor a group")]
pub struct UserError {
    /// The part that is wrong.
    pub text: String,
}

/// `user[:group]`, each a name of the image's /etc/passwd and /etc/group or a number. The engine resolves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    group: Option<String>,
}

text_value!(User, scalars, "a user such as \"nobody\", 1000, \"1000:1000\" or \"www-data:www-data\"");

impl User {
    /// Name or number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name or number of the group; the user's own group if `None`.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let check = |part: &str| {
            let number = part.bytes().all(|byte| byte.is_ascii_digit());
            let good = part.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b','))
                && part.len() <= 256
                && !part.is_empty()
                && !part.starts_with('-')
                // 4294967295 is (uid_t)-1, which the kernel takes for "leave it as it is".
                && (!number || part.parse::<u32>().is_ok_and(|id| id != u32::MAX));
            if good { Ok(part.to_owned()) } else { Err(UserError { text: part.to_owned() }) }
        };
        let (name, group) = match text.split_once(':') {
            None => (text, None),
            Some((name, group)) => (name, Some(group)),
        };
        Ok(Self { name: check(name)?, group: group.map(check).transpose()? })
    }
}

impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(group) = &self.group {
            write!(formatter, ":{group}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        let read =
            |text: &str| text.parse::<User>().map(|user| (user.name().to_owned(), user.group().map(str::to_owned)));
        assert_eq!(read("1000"), Ok(("1000".to_owned(), None)));
        assert_eq!(read("www-data:adm"), Ok(("www-data".to_owned(), Some("adm".to_owned()))));
        for text in ["", ":", "a:", ":a", "a:b:c", "a b", "-a", "4294967295", "0:4294967296", "a/b"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
