//! Who a container's process runs as.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::text::{Text, described, refusal, text_value};

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
        let (name, group) = match text.split_once(':') {
            None => (text, None),
            Some((name, group)) => (name, Some(group)),
        };
        Ok(Self { name: check(name)?, group: group.map(check).transpose()? })
    }
}

/// A name or a number.
fn check(part: &str) -> Result<String, UserError> {
    let good = part.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b','))
        && part.len() <= 256
        && !part.is_empty()
        && !part.starts_with('-')
        // 4294967295 is (uid_t)-1, which the kernel takes for "leave it as it is".
        && (!is_number(part) || part.parse::<u32>().is_ok_and(|id| id != u32::MAX));
    if good { Ok(part.to_owned()) } else { Err(UserError { text: part.to_owned() }) }
}

fn is_number(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
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

/// A further group of a container's process. Written as it is read: a number stays one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Group {
    /// As containers have them: no higher than 65535.
    Number(u16),
    /// Of the image's /etc/group. The engine resolves it.
    Name(String),
}

/// Text that is no further group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// It is no name either.
    #[error(transparent)]
    Name(#[from] UserError),
    /// It is beyond what a container has.
    #[error("{0} is above 65535, the highest group of a container")]
    Number(String),
}

impl Group {
    /// Of one that is given by number.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(u32::from(*number)),
            Self::Name(_) => None,
        }
    }
}

const GROUP: &str = "a group such as \"video\" or 44, up to 65535";

described!(Group, {
    "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0, "maximum": 65535 }],
    "description": format!("Takes {GROUP}."),
});

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let part = check(text)?;
        if !is_number(&part) {
            return Ok(Self::Name(part));
        }
        part.parse().map(Self::Number).map_err(|_| GroupError::Number(part))
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text { expected: GROUP, scalars: true }.read(deserializer)?;
        text.parse().map_err(|error: GroupError| refusal(&error, GROUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_names_or_numbers_and_stay_what_they_are() {
        let groups: Vec<Group> = serde_json::from_str(r#"[44, "65535", "video"]"#).unwrap();
        assert_eq!(groups, [Group::Number(44), Group::Number(65535), Group::Name("video".into())]);
        assert_eq!(serde_json::to_string(&groups).unwrap(), r#"[44,65535,"video"]"#);
        for text in ["65536", "-1", "\"\"", "\"a:b\""] {
            assert!(serde_json::from_str::<Group>(text).is_err(), "{text}");
        }
        let error = "70000".parse::<Group>().unwrap_err().to_string();
        assert_eq!(error, "70000 is above 65535, the highest group of a container");
    }

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
