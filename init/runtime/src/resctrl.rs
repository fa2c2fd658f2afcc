//! `linux.intelRdt`: a container's class of cache and memory bandwidth, a directory of the resctrl file system.
//!
//! A class that the configuration names belongs to somebody else and stays; one of the container's own name is made
//! for it and goes with it, as does its monitoring group.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Context, SystemError};
use crate::spec::IntelRdt;

/// Why a class cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// Nothing to make it in.
    #[error("linux.intelRdt needs a mounted resctrl file system, and there is none")]
    NotMounted,
    /// A name that leads elsewhere.
    #[error("linux.intelRdt.closID must be / or a name without slashes, not {id:?}")]
    Name {
        /// As given.
        id: String,
    },
    /// Without schemata there is nothing to make it of.
    #[error("linux.intelRdt.closID names the class {id}, which does not exist, and no schemata are given to make it")]
    NoClass {
        /// As given.
        id: String,
    },
    /// A line that cannot be one.
    #[error("linux.intelRdt.{field} must be {must}, not {value:?}")]
    Schema {
        /// Which.
        field: &'static str,
        /// What it must be.
        must: &'static str,
        /// As given.
        value: String,
    },
    /// Somebody else's class is not changed.
    #[error("linux.intelRdt: the class {id} exists and is not {line:?}")]
    Different {
        /// Its name.
        id: String,
        /// As wanted.
        line: String,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// A class, and what of it was made here.
#[derive(Debug)]
pub(crate) struct Class {
    directory: PathBuf,
    monitor: Option<PathBuf>,
    made: bool,
}

impl Class {
    /// Finds or makes the class of a container.
    pub(crate) fn prepare(rdt: &IntelRdt, container: &str) -> Result<Self, RdtError> {
        Self::prepare_below(&mounted().ok_or(RdtError::NotMounted)?, rdt, container)
    }

    fn prepare_below(root: &Path, rdt: &IntelRdt, container: &str) -> Result<Self, RdtError> {
        let lines = lines(rdt)?;
        let directory = directory(root, rdt, container)?;
        let id = rdt.clos_id.as_deref().unwrap_or(container).to_owned();
        let exists = directory.is_dir();
        if exists && rdt.clos_id.is_some() {
            let present = read(&directory.join("schemata"))?;
            if let Some(line) = lines.iter().find(|line| !agrees(&present, line)) {
                return Err(RdtError::Different { id, line: line.clone() });
            }
        } else if rdt.clos_id.is_some() && lines.is_empty() {
            return Err(RdtError::NoClass { id });
        }
        if !exists {
            make(&directory)?;
        }
        let mut this = Self { directory, monitor: None, made: !exists };
        let result = if exists && rdt.clos_id.is_some() { Ok(()) } else { this.write_schemata(&lines) };
        match result.and_then(|()| this.make_monitor(rdt, container)) {
            Ok(()) => Ok(this),
            Err(error) => {
                this.discard();
                Err(error)
            }
        }
    }

    fn write_schemata(&self, lines: &[String]) -> Result<(), RdtError> {
        let file = self.directory.join("schemata");
        // A line a write: the kernel says by its error which one it does not take.
        lines.iter().try_for_each(|line| write(&file, &format!("{line}\n")))
    }

    fn make_monitor(&mut self, rdt: &IntelRdt, container: &str) -> Result<(), RdtError> {
        if rdt.enable_monitoring {
            let group = monitor_of(&self.directory, container);
            make(&group)?;
            self.monitor = Some(group);
        }
        Ok(())
    }

    /// Puts a process into it; those that it makes follow.
    pub(crate) fn assign(&self, pid: i32) -> Result<(), RdtError> {
        for directory in std::iter::once(&self.directory).chain(&self.monitor) {
            write(&directory.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// After a failure that is reported already.
    pub(crate) fn discard(&self) {
        // The first failure is what the caller hears of.
        if let Some(monitor) = &self.monitor {
            let _ = std::fs::remove_dir(monitor);
        }
        if self.made {
            let _ = std::fs::remove_dir(&self.directory);
        }
    }
}

/// Writes the schemata of a container's class anew.
pub fn update(rdt: &IntelRdt, container: &str) -> Result<(), RdtError> {
    update_below(&mounted().ok_or(RdtError::NotMounted)?, rdt, container)
}

fn update_below(root: &Path, rdt: &IntelRdt, container: &str) -> Result<(), RdtError> {
    Class { directory: directory(root, rdt, container)?, monitor: None, made: false }.write_schemata(&lines(rdt)?)
}

/// Takes back what was made for a container that has ended.
pub fn remove(rdt: &IntelRdt, container: &str) -> Result<(), RdtError> {
    match mounted() {
        Some(root) => remove_below(&root, rdt, container),
        None => Ok(()),
    }
}

fn remove_below(root: &Path, rdt: &IntelRdt, container: &str) -> Result<(), RdtError> {
    let class = directory(root, rdt, container)?;
    let monitor = rdt.enable_monitoring.then(|| monitor_of(&class, container));
    let own = rdt.clos_id.is_none().then_some(class);
    for directory in monitor.into_iter().chain(own) {
        match std::fs::remove_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.context("rmdir", || directory.display().to_string())?,
        }
    }
    Ok(())
}

/// Where resctrl is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn directory(root: &Path, rdt: &IntelRdt, container: &str) -> Result<PathBuf, RdtError> {
    match rdt.clos_id.as_deref() {
        Some("/") => Ok(root.to_owned()),
        Some(id) if id.is_empty() || id.contains('/') || matches!(id, "." | "..") => {
            Err(RdtError::Name { id: id.to_owned() })
        }
        Some(id) => Ok(root.join(id)),
        None => Ok(root.join(container)),
    }
}

fn monitor_of(class: &Path, container: &str) -> PathBuf {
    class.join("mon_groups").join(container)
}

/// What to write, in the specification's order.
fn lines(rdt: &IntelRdt) -> Result<Vec<String>, RdtError> {
    let mut lines = Vec::new();
    for (field, schema) in [("l3CacheSchema", &rdt.l3_cache_schema), ("memBwSchema", &rdt.mem_bw_schema)] {
        lines.extend(schema.iter().filter(|schema| !schema.is_empty()).map(|schema| (field, schema)));
    }
    lines.extend(rdt.schemata.iter().map(|schema| ("schemata", schema)));
    let one = |(field, schema): (&'static str, &String)| {
        let wrong = |must| Err(RdtError::Schema { field, must, value: schema.clone() });
        match schema {
            schema if schema.contains('\n') => wrong("one line"),
            schema if field == "memBwSchema" && !schema.starts_with("MB:") => wrong("a line that begins with MB:"),
            schema => Ok(schema.clone()),
        }
    };
    lines.into_iter().map(one).collect()
}

/// Whether every value of a line as `L3:0=7f0;1=1f` is in force in a `schemata` file.
fn agrees(present: &str, line: &str) -> bool {
    let parse = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (resource, values) = line.split_once(':')?;
        let plain = |value: &str| value.trim().trim_start_matches('0').to_ascii_lowercase();
        let values = values.split(';').filter_map(|value| value.split_once('='));
        let values = values.map(|(id, value)| (plain(id), plain(value))).collect();
        Some((resource.trim().to_owned(), values))
    };
    let Some((resource, wanted)) = parse(line) else { return false };
    let mut found = present.lines().filter_map(parse).filter(|(name, _)| *name == resource);
    found.any(|(_, values)| wanted.iter().all(|value| values.contains(value)))
}

fn make(directory: &Path) -> Result<(), RdtError> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => Ok(result.context("mkdir", || directory.display().to_string())?),
    }
}

fn read(path: &Path) -> Result<String, RdtError> {
    Ok(std::fs::read_to_string(path).context("read", || path.display().to_string())?)
}

fn write(path: &Path, text: &str) -> Result<(), RdtError> {
    Ok(crate::idmap::write_file(&path.display().to_string(), text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like resctrl as far as files go; the kernel would put them there.
    fn tree(classes: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, schemata) in classes {
            let directory = root.path().join(name);
            std::fs::create_dir_all(directory.join("mon_groups")).unwrap();
            std::fs::write(directory.join("schemata"), schemata).unwrap();
            std::fs::write(directory.join("tasks"), "").unwrap();
        }
        root
    }

    fn rdt(clos_id: Option<&str>, schemata: &[&str]) -> IntelRdt {
        let schemata = schemata.iter().map(|line| (*line).to_owned()).collect();
        IntelRdt { clos_id: clos_id.map(str::to_owned), schemata, ..IntelRdt::default() }
    }

    #[test]
    fn a_process_joins_the_class_that_is_named() {
        let root = tree(&[("gold", "    MB:0=100\n    L3:0=07ff;1=7ff\n")]);
        let class = Class::prepare_below(root.path(), &rdt(Some("gold"), &["L3:1=7FF"]), "web").unwrap();
        class.assign(42).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("gold/tasks")).unwrap(), "42");
        class.discard();
        remove_below(root.path(), &rdt(Some("gold"), &[]), "web").unwrap();
        assert!(root.path().join("gold").exists());
    }

    #[test]
    fn somebody_elses_class_is_compared_and_not_written() {
        let root = tree(&[("gold", "L3:0=7ff\n")]);
        let error = Class::prepare_below(root.path(), &rdt(Some("gold"), &["L3:0=1"]), "web").unwrap_err();
        assert_eq!(error.to_string(), "linux.intelRdt: the class gold exists and is not \"L3:0=1\"");
        assert_eq!(std::fs::read_to_string(root.path().join("gold/schemata")).unwrap(), "L3:0=7ff\n");
        let error = Class::prepare_below(root.path(), &rdt(Some("none"), &[]), "web").unwrap_err();
        assert!(error.to_string().contains("class none, which does not exist"));
    }

    #[test]
    fn its_own_class_comes_and_goes_with_the_container() {
        let root = tree(&[]);
        let wish = IntelRdt { enable_monitoring: true, ..rdt(None, &[]) };
        std::fs::create_dir_all(root.path().join("web/mon_groups")).unwrap();
        Class::prepare_below(root.path(), &wish, "web").unwrap();
        assert!(root.path().join("web/mon_groups/web").is_dir());
        // The kernel takes what it put into a class away with it.
        std::fs::remove_dir_all(root.path().join("web/mon_groups")).unwrap();
        remove_below(root.path(), &wish, "web").unwrap();
        assert!(!root.path().join("web").exists());
    }

    #[test]
    fn what_fails_leaves_no_class() {
        let root = tree(&[]);
        let error = Class::prepare_below(root.path(), &rdt(None, &["L3:0=f"]), "web").unwrap_err();
        assert!(error.to_string().starts_with("open "), "{error}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn schemata_are_written_anew() {
        let root = tree(&[("web", "L3:0=7ff\n")]);
        update_below(root.path(), &rdt(None, &["L3:0=1ff"]), "web").unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("web/schemata")).unwrap(), "L3:0=1ff\n");
    }

    #[test]
    fn names_and_lines_are_checked() {
        let root = tree(&[]);
        let text = |rdt: &IntelRdt| Class::prepare_below(root.path(), rdt, "web").unwrap_err().to_string();
        for id in ["..", "a/b", ""] {
            assert!(text(&rdt(Some(id), &["L3:0=f"])).contains("closID must be"), "{id}");
        }
        assert!(text(&rdt(None, &["L3:0=f\nMB:0=1"])).contains("must be one line"));
        let wish = IntelRdt { mem_bw_schema: Some("L3:0=f".into()), ..rdt(None, &[]) };
        assert!(text(&wish).contains("begins with MB:"));
        let both = IntelRdt {
            l3_cache_schema: Some("L3:0=f".into()),
            mem_bw_schema: Some("MB:0=10".into()),
            ..rdt(None, &["L2:0=f"])
        };
        assert_eq!(lines(&both).unwrap(), ["L3:0=f", "MB:0=10", "L2:0=f"]);
        assert_eq!(directory(root.path(), &rdt(Some("/"), &[]), "web").unwrap(), root.path());
    }
}
