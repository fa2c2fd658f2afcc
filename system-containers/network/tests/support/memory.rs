//! A bound for the memory of a program, what the kernel has for it included.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{NUMBER, Ordering, Program, skip};

/// Files of a group of the second version of cgroups and of the first: how much it may have, and how much it had at most.
const FILES: [(&str, &str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max", "memory.peak"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
];

/// A group that ends with the test. Whoever is in it has to have ended before.
pub struct MemoryGroup {
    path: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// With so many bytes; `None`, and says so, where no such group can be made.
    pub fn new(bytes: u64) -> Option<Self> {
        let name = format!("nettest-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let made = FILES.iter().find_map(|(root, limit, peak)| {
            let group = Self { path: Path::new(root).join(&name), peak };
            fs::create_dir(&group.path).ok()?;
            // A folder that is no group has no such file.
            fs::OpenOptions::new()
                .write(true)
                .open(group.path.join(limit))
                .ok()?
                .write_all(bytes.to_string().as_bytes())
                .ok()?;
            Some(group)
        });
        if made.is_none() {
            skip("no cgroup with a bound for memory can be made here");
        }
        made
    }

    /// Puts a program into it that was just started.
    pub fn take(&self, program: &Program) {
        fs::write(self.path.join("cgroup.procs"), program.child.id().to_string()).unwrap();
    }

    /// The most that was in use at once, in bytes.
    pub fn most(&self) -> u64 {
        fs::read_to_string(self.path.join(self.peak)).map_or(0, |text| text.trim().parse().unwrap())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // One that is still in use stays: the test has failed then.
        let _still_in_use = fs::remove_dir(&self.path);
    }
}
