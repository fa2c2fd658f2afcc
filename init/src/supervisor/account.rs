//! Who a further program in a container runs as: names looked up in the container's own files.
//!
//! Those files are the container's and may be anything, so a task reads them: see [`crate::task`].

use std::fs::File;
use std::io::Read;

use berth_config::{Account, Group, User};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::task::Task;

/// Looks the user up as the process with this number sees the files; the user is in these groups too.
pub(super) fn look_up(user: User, more: Vec<Group>, pid: i32) -> Result<Task<Result<Account, String>>, String> {
    let task = Task::start(move || {
        let root = File::open(format!("/proc/{pid}/root")).map_err(|error| format!("open its root: {error}"))?;
        find(&root, &user, &more)
    });
    task.map_err(|error| crate::chain(&error))
}

fn find(root: &File, user: &User, more: &[Group]) -> Result<Account, String> {
    let (users, groups) = (read(root, "etc/passwd")?, read(root, "etc/group")?);
    let mut account = Account::find(&users, &groups, user.name(), user.group()).map_err(|error| error.to_string())?;
    account.additional_gids.extend(Account::named_groups(&groups, more).map_err(|error| error.to_string())?);
    account.additional_gids.extend(more.iter().filter_map(Group::number));
    Ok(account)
}

/// Nothing if there is no such file. Links stay inside, whatever they say, and what is no file is not read.
fn read(root: &File, path: &str) -> Result<Vec<u8>, String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Err(nix::Error::ENOENT) => return Ok(Vec::new()),
        opened => File::from(opened.map_err(|error| format!("open the container's /{path}: {error}"))?),
    };
    let failed = |error: std::io::Error| format!("read the container's /{path}: {error}");
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("the container's /{path} is no file"));
    }
    let mut bytes = Vec::new();
    file.take(Account::FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_inside_and_only_if_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = File::open(folder.path()).unwrap();
        assert_eq!(read(&root, "etc/passwd"), Ok(Vec::new()));
        std::fs::write(folder.path().join("users"), "web:x:33:34::/:\n").unwrap();
        // Out of it, as somebody outside would follow it.
        std::os::unix::fs::symlink("../../../../users", etc.join("passwd")).unwrap();
        assert_eq!(read(&root, "etc/passwd").unwrap(), b"web:x:33:34::/:\n");
        nix::unistd::mkfifo(&etc.join("group"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&root, "etc/group").unwrap_err().contains("is no file"));
    }

    #[test]
    fn who_is_named_is_in_the_groups_that_the_container_adds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/group"), "video:x:27:\nlog:x:4:web\n").unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "web:x:33:34::/:\n").unwrap();
        let root = File::open(folder.path()).unwrap();
        let more = ["video", "44"].map(|group| group.parse().unwrap());
        let account = find(&root, &"web".parse().unwrap(), &more).unwrap();
        assert_eq!((account.uid, account.gid, account.additional_gids), (33, 34, vec![34, 4, 27, 44]));
    }

    #[test]
    fn a_name_is_found_where_the_process_is() {
        let mut task = look_up("root".parse().unwrap(), Vec::new(), std::process::id().cast_signed()).unwrap();
        let reactor = crate::reactor::Reactor::new().unwrap();
        reactor.add(&task, crate::reactor::Token::Task(0)).unwrap();
        let found = loop {
            assert!(!reactor.wait(Some(std::time::Duration::from_secs(60))).unwrap().is_empty(), "it says nothing");
            if let Some(found) = task.advance() {
                break found.unwrap();
            }
        };
        nix::sys::wait::waitpid(task.pid(), None).unwrap();
        assert_eq!(found.map(|account| (account.uid, account.home)), Ok((0, "/root".to_owned())));
    }
}
