//! The program itself: finding and executing it.

use std::collections::BTreeSet;
use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Step, SystemError};
use crate::spec::Process;
use crate::sys;

/// What execvp(3) of musl and glibc look through without PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that is ready to be executed.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    search: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: String,
}

impl Program {
    /// In the container's root, before privileges are dropped.
    pub(crate) fn prepare(process: &Process) -> Result<Self, Error> {
        let nul = |_| Error::configuration("process", "must not contain NUL");
        let name = process.args.first().cloned().unwrap_or_default();
        let mut environment =
            latest(&process.env).into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(nul)?;
        if !process.env.iter().any(|variable| variable.starts_with("HOME=")) {
            environment.push(
                CString::new(format!("HOME={}", home(process.user.uid)))
                    .map_err(|_| Error::configuration("process.user.uid", "has a home directory with NUL"))?,
            );
        }
        let path = process.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
        Ok(Self {
            name,
            search: path.unwrap_or(DEFAULT_PATH).to_owned(),
            arguments: process
                .args
                .iter()
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<_, _>>()
                .map_err(nul)?,
            environment,
            directory: process.cwd.clone(),
        })
    }

    /// As the program's user: goes to the working directory and sees that the program is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        rustix::process::chdir(self.directory.as_str()).on("chdir", &self.directory).step("enter process.cwd")?;
        let here = rustix::process::getcwd(Vec::new()).on("getcwd", &self.directory).step("enter process.cwd")?;
        // A working directory outside of the root has no path in it (CVE-2024-21626).
        if !here.as_bytes().starts_with(b"/") {
            return Err(Error::configuration("process.cwd", "must be inside the container's root"));
        }
        self.find().map(drop)
    }

    /// Becomes the program; returns only why not.
    pub(crate) fn execute(&self) -> Result<std::convert::Infallible, Error> {
        let path = self.find()?;
        let file =
            CString::new(path.as_str()).map_err(|_| Error::configuration("process.args[0]", "must not contain NUL"))?;
        let errno = sys::exec::execute(&file, &self.arguments, &self.environment);
        Err(SystemError { call: "exec", subject: path, source: errno }.into())
    }

    fn find(&self) -> Result<String, Error> {
        if self.name.contains('/') {
            executable(&self.name).on("exec", &self.name)?;
            return Ok(self.name.clone());
        }
        let mut denied = None;
        for directory in self.search.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let path = format!("{directory}/{}", self.name);
            match executable(&path) {
                Ok(()) => return Ok(path),
                Err(Errno::ACCESS) => denied = Some(path),
                Err(_) => {}
            }
        }
        match denied {
            Some(path) => Err(SystemError { call: "exec", subject: path, source: Errno::ACCESS }.into()),
            None => {
                let subject = format!("{}: executable file not found in $PATH", self.name);
                Err(SystemError { call: "exec", subject, source: Errno::NOENT }.into())
            }
        }
    }
}

fn executable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// From the container's /etc/passwd, as runc and crun do; `/` if it says nothing.
fn home(uid: u32) -> String {
    use std::io::Read as _;
    /// More than any real file has; the image decides what is in it.
    const MAXIMUM: u64 = 1 << 20;
    let mut text = Vec::new();
    // A path inside the container, but this process is inside as well: links lead nowhere else. An image's pipe has
    // nobody at its other end to wait for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open("/etc/passwd", flags, Mode::empty()).map(std::fs::File::from) {
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !regular || file.take(MAXIMUM).read_to_end(&mut text).is_err() {
            return "/".to_owned();
        }
    }
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(passwd: &str, uid: u32) -> String {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).and_then(|field| field.parse().ok()) == Some(uid))
        .and_then(|fields| fields.get(5).filter(|home| home.starts_with('/')).map(|home| (*home).to_owned()))
        .unwrap_or_else(|| "/".to_owned())
}

/// What is set twice has its last value: getenv(3) would find the first.
fn latest(environment: &[String]) -> Vec<&str> {
    let mut names = BTreeSet::new();
    let name = |text: &'_ str| text.find('=').unwrap_or(text.len());
    let mut kept: Vec<&str> = environment.iter().map(String::as_str).rev().collect();
    kept.retain(|text| names.insert(text.get(..name(text))));
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let environment = ["A=1", "B=2", "A=3=4", "AA=5", "B="].map(str::to_owned);
        assert_eq!(latest(&environment), ["A=3=4", "AA=5", "B="]);
    }

    #[test]
    fn the_home_directory_is_that_of_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n";
        assert_eq!(home_in(passwd, 0), "/root");
        assert_eq!(home_in(passwd, 33), "/var/www");
        assert_eq!(home_in(passwd, 34), "/");
    }
}
