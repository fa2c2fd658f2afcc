//! Who a container's process is: names of users and groups, looked up in its own /etc/passwd and /etc/group.
//!
//! The rules are Docker's: a number needs no entry; the group is the user's unless one is given; the further groups
//! are those of /etc/group that list the user, and none if a group is given. Among them is the first one.

use serde::{Deserialize, Serialize};

use crate::container::Group;

/// The most further groups: the kernel's `NGROUPS_MAX`.
const GROUPS: usize = 65_536;

/// The highest user and group that a container has: as many as it has of the machine's.
const HIGHEST: u32 = u16::MAX as u32;

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No such name.
    #[error("there is no user {name:?} in the container's /etc/passwd; use its number or another name")]
    User {
        /// As given.
        name: String,
    },
    /// No such name.
    #[error("there is no group {name:?} in the container's /etc/group; use its number or another name")]
    Group {
        /// As given.
        name: String,
    },
    /// One that no process of a container can be in.
    #[error(
        "group {name:?} is number {gid} in the container's /etc/group, above {HIGHEST}, the highest of a container"
    )]
    HighGroup {
        /// As given.
        name: String,
        /// Its number.
        gid: u32,
    },
    /// One that the container has not.
    #[error(
        "{kind} {id} is above {HIGHEST}, the highest of a container with ids of its own: name another `user`, or take the \
         machine's ids with security.user_namespace = \"host\""
    )]
    HighId {
        /// `user` or `group`.
        kind: &'static str,
        /// Its number.
        id: u32,
    },
}

/// A process's identity inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// All its groups, the first one too: a program with a group of its own (set-gid) could take that away else, and with
    /// it what the group may *not* do (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
    /// The user's home directory; `/` without one.
    pub home: String,
}

impl Account {
    /// The largest /etc/passwd or /etc/group that is worth reading, in bytes. Those of real images have a few KiB.
    pub const FILE_BYTES: u64 = 1 << 20;

    /// Looks `user` and `group`, each a name or a number, up in what these two files say. Nobody is root.
    pub fn find(users: &[u8], groups: &[u8], user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        let user = if user.is_empty() { "0" } else { user };
        let number = id(user);
        let known = entries(users).find(|fields| match (fields.first(), fields.get(2)) {
            (Some(name), Some(uid)) => *name == user || (number.is_some() && id(uid) == number),
            _ => false,
        });
        let uid = known.as_ref().and_then(|fields| id(fields.get(2)?)).or(number);
        let uid = uid.ok_or_else(|| AccountError::User { name: user.to_owned() })?;
        let own_group = known.as_ref().and_then(|fields| id(fields.get(3)?)).unwrap_or(0);
        let home = known.as_ref().and_then(|fields| fields.get(5).filter(|home| home.starts_with('/')));
        let home = home.map_or_else(|| "/".to_owned(), |home| (*home).to_owned());
        let (gid, mut additional_gids) = match group.filter(|group| !group.is_empty()) {
            Some(group) => (look_up_group(groups, group)?, Vec::new()),
            None => {
                let name = known.as_ref().and_then(|fields| fields.first().copied());
                (own_group, name.map(|name| groups_of(groups, name)).unwrap_or_default())
            }
        };
        if !additional_gids.contains(&gid) {
            additional_gids.insert(0, gid);
        }
        Ok(Account { uid, gid, additional_gids, home })
    }

    /// Refuses what a container with ids of its own has not.
    pub fn stays_within_range(&self) -> Result<(), AccountError> {
        let groups = [self.gid].into_iter().chain(self.additional_gids.iter().copied());
        let mut all = [("user", self.uid)].into_iter().chain(groups.map(|gid| ("group", gid)));
        match all.find(|(_, id)| *id > HIGHEST) {
            Some((kind, id)) => Err(AccountError::HighId { kind, id }),
            None => Ok(()),
        }
    }

    /// The numbers of the groups that are given by name, looked up in what /etc/group says.
    pub fn named_groups(groups: &[u8], wanted: &[Group]) -> Result<Vec<u32>, AccountError> {
        let names = wanted.iter().filter_map(|group| match group {
            Group::Name(name) => Some(name),
            Group::Number(_) => None,
        });
        let find = |name: &String| match look_up_group(groups, name)? {
            gid if gid > HIGHEST => Err(AccountError::HighGroup { name: name.clone(), gid }),
            gid => Ok(gid),
        };
        names.map(find).collect()
    }
}

fn look_up_group(groups: &[u8], group: &str) -> Result<u32, AccountError> {
    let number = id(group);
    let known = entries(groups).find(|fields| fields.first() == Some(&group));
    let gid = known.and_then(|fields| id(fields.get(2)?)).or(number);
    gid.ok_or_else(|| AccountError::Group { name: group.to_owned() })
}

fn groups_of(groups: &[u8], user: &str) -> Vec<u32> {
    let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|name| name == user));
    entries(groups).filter(member).filter_map(|fields| id(fields.get(2)?)).take(GROUPS).collect()
}

/// The fields of every line; lines that are not text are none of ours.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    let lines = file.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(|line| line.trim_end().split(':').collect())
}

/// A number that is a user or group; the highest one means "nobody's" to the kernel.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/web:/bin/false\nshort:x\n\xff\n12:x:7:7::/:\n";
    const GROUPS: &[u8] = b"root:x:0:root\nweb:x:34:\ndisk:x:6:root,web\nlog:x:4:web\ndomain:x:100513:\n";

    fn found(user: &str, group: Option<&str>) -> (u32, u32, Vec<u32>, String) {
        let account = Account::find(USERS, GROUPS, user, group).unwrap();
        (account.uid, account.gid, account.additional_gids, account.home)
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        assert_eq!(found("", None), (0, 0, vec![0, 6], "/root".to_owned()));
        assert_eq!(found("web", None), (33, 34, vec![34, 6, 4], "/srv/web".to_owned()));
        assert_eq!(found("33", None), (33, 34, vec![34, 6, 4], "/srv/web".to_owned()));
        assert_eq!(found("web", Some("disk")), (33, 6, vec![6], "/srv/web".to_owned()));
        assert_eq!(found("1000", None), (1000, 0, vec![0], "/".to_owned()));
        assert_eq!(found("1000", Some("2000")), (1000, 2000, vec![2000], "/".to_owned()));
        assert_eq!(found("12", None), (7, 7, vec![7], "/".to_owned()));
    }

    #[test]
    fn further_groups_are_found_by_name() {
        let named = |names: &[&str]| {
            let wanted: Vec<Group> = names.iter().map(|name| name.parse().unwrap()).collect();
            Account::named_groups(GROUPS, &wanted)
        };
        assert_eq!(named(&["disk", "44", "log"]).unwrap(), [6, 4]);
        assert!(matches!(named(&["none"]), Err(AccountError::Group { name }) if name == "none"));
        let high = named(&["domain"]).unwrap_err().to_string();
        assert!(
            high.starts_with("group \"domain\" is number 100513 in the container's /etc/group, above 65535"),
            "{high}"
        );
    }

    #[test]
    fn ids_beyond_a_containers_own_are_refused() {
        let within = |user: &str, group| Account::find(USERS, GROUPS, user, group).unwrap().stays_within_range();
        assert!(within("65535", Some("65535")).is_ok());
        assert!(matches!(within("65536", None), Err(AccountError::HighId { kind: "user", id: 65_536 })));
        assert!(matches!(within("web", Some("domain")), Err(AccountError::HighId { kind: "group", id: 100_513 })));
        let account = Account { uid: 0, gid: 0, additional_gids: vec![4, 70_000], home: String::new() };
        let error = account.stays_within_range().unwrap_err().to_string();
        assert!(error.starts_with("group 70000 is above 65535, the highest of a container"), "{error}");
    }

    #[test]
    fn missing_names_are_errors() {
        assert!(matches!(Account::find(USERS, GROUPS, "nobody", None), Err(AccountError::User { .. })));
        assert!(matches!(Account::find(USERS, GROUPS, "web", Some("none")), Err(AccountError::Group { .. })));
        assert!(matches!(Account::find(USERS, GROUPS, "short", None), Err(AccountError::User { .. })));
        assert!(matches!(Account::find(b"", b"", "4294967295", None), Err(AccountError::User { .. })));
    }
}
