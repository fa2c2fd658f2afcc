//! Debian source packages, fetched by apt with a source list, lists and cache of our own: the system's configuration
//! is read (which mirror, which keys) and never changed, and no root rights are needed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{output, step, tool};
use crate::digest;
use crate::workspace::Workspace;

/// A source package that has been fetched.
#[derive(Debug)]
pub struct SourcePackage {
    /// The unpacked tree with Debian's patches applied.
    pub tree: PathBuf,
    /// Digest of the package's description, which holds the digests of its files.
    pub identity: String,
    /// The package's version.
    pub version: String,
}

/// Fetches and unpacks a source package, unless the cache has it.
///
/// # Errors
/// If the system names no Debian mirror, or apt or dpkg-source fail.
pub fn fetch(workspace: &Workspace, name: &str) -> Result<SourcePackage> {
    let entry = workspace.cache.entry_or("debian-source", name, |folder| {
        step(&format!("fetching Debian's source of {name}"));
        let options = apt_options(workspace)?;
        output(tool("apt-get").args(&options).arg("update"))?;
        output(tool("apt-get").args(&options).args(["source", "--download-only", name]).current_dir(folder))?;
        let description = description_in(folder)?;
        // apt has checked the files against the signed lists.
        output(tool("dpkg-source").args(["--no-check", "-x"]).arg(description).arg(folder.join("tree")))?;
        Ok(())
    })?;
    let description = description_in(&entry)?;
    let text = fs::read_to_string(&description).with_context(|| format!("read {}", description.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("unknown");
    Ok(SourcePackage {
        tree: entry.join("tree"),
        identity: digest::of_bytes(text.as_bytes()),
        version: version.to_owned(),
    })
}

fn description_in(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "dsc") {
            return Ok(path);
        }
    }
    bail!("apt put no source package into {}", folder.display())
}

fn apt_options(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.cache.folder("apt")?;
    for needed in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(needed)).with_context(|| format!("make {needed} for apt"))?;
    }
    let list = folder.join("source.sources");
    fs::write(&list, source_list()?).with_context(|| format!("write {}", list.display()))?;
    let folder = folder.display();
    let settings = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={folder}/lists"),
        format!("Dir::Cache={folder}/cache"),
        // The user that apt would drop to cannot read a home folder.
        "APT::Sandbox::User=root".to_owned(),
    ];
    Ok(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect())
}

/// The system's Debian entries, as entries for source packages.
fn source_list() -> Result<String> {
    let mut codename = None;
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    for line in release.lines() {
        if let Some(value) = line.strip_prefix("VERSION_CODENAME=") {
            codename = Some(value.trim_matches('"').to_owned());
        }
    }
    let codename = codename.context("/etc/os-release has no VERSION_CODENAME")?;
    let mut list = String::new();
    for path in system_lists()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let deb822 = path.extension().is_some_and(|extension| extension == "sources");
        list += &if deb822 { from_stanzas(&text, &codename) } else { from_lines(&text, &codename) };
    }
    if list.is_empty() {
        bail!("the system's apt sources name no mirror of Debian {codename}");
    }
    Ok(list)
}

fn system_lists() -> Result<Vec<PathBuf>> {
    let mut lists = vec![PathBuf::from("/etc/apt/sources.list")];
    match fs::read_dir("/etc/apt/sources.list.d") {
        Ok(entries) => {
            for entry in entries {
                lists.push(entry?.path());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("list /etc/apt/sources.list.d"),
    }
    lists.retain(|path| path.is_file() && path.extension().is_some_and(|name| name == "list" || name == "sources"));
    lists.sort();
    Ok(lists)
}

/// Is this one of the release's own suites (`bookworm`, `bookworm-security`), not a third party's?
fn is_suite_of(suite: &str, codename: &str) -> bool {
    suite.strip_prefix(codename).is_some_and(|rest| ["", "-updates", "-security"].contains(&rest.trim_end_matches('/')))
}

fn from_stanzas(text: &str, codename: &str) -> String {
    let mut list = String::new();
    for stanza in text.split("\n\n") {
        let lines: Vec<&str> = stanza.lines().filter(|line| !line.starts_with('#')).collect();
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let binary = field("Types:").split_whitespace().any(|kind| kind == "deb");
        let own = field("Suites:").split_whitespace().all(|suite| is_suite_of(suite, codename));
        if !binary || !own || field("Suites:").is_empty() {
            continue;
        }
        list += "Types: deb-src\n";
        for line in lines.iter().filter(|line| !line.starts_with("Types:")) {
            list += line;
            list.push('\n');
        }
        list.push('\n');
    }
    list
}

/// One-line entries become stanzas, because the list we write has one form.
fn from_lines(text: &str, codename: &str) -> String {
    let mut list = String::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(address), Some(suite)) = (words.next(), words.next()) else { continue };
        if !is_suite_of(suite, codename) {
            continue;
        }
        let components: Vec<&str> = words.collect();
        list += &format!("Types: deb-src\nURIs: {address}\nSuites: {suite}\nComponents: {}\n", components.join(" "));
        let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        if let Some(key) = key {
            list += &format!("Signed-By: {key}\n");
        }
        list.push('\n');
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_of_the_release_is_taken_and_a_third_partys_is_not() {
        let text = "Types: deb deb-src\n# old\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\n\
                    Types: deb\nURIs: http://other/x\nSuites: nodistro\n";
        let list = from_stanzas(text, "bookworm");
        assert_eq!(list, "Types: deb-src\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\n");
    }

    #[test]
    fn a_line_becomes_a_stanza() {
        let text = "# deb http://no/ bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main contrib\n\
                    deb http://other/ cloud-sdk-bookworm main\n";
        let list = from_lines(text, "bookworm");
        let expected = "Types: deb-src\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: main contrib\n\
                        Signed-By: /k.gpg\n\n";
        assert_eq!(list, expected);
    }
}
