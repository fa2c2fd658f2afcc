//! Where leases are kept over a restart and a reboot: a file for each kind and hardware address, so that a renamed link finds
//! its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dhcp::message::Mac;
use crate::files;

/// By how much the end of a lease may be later than what is kept of it: short ones are not written down with each renewal.
const SAVED_APART: Duration = Duration::from_secs(600);
/// Servers count in whole seconds.
const ROUNDED: Duration = Duration::from_secs(1);

/// A lease that can be kept.
pub trait Keep: Serialize + DeserializeOwned {
    /// The end of its file's name.
    const SUFFIX: &'static str;

    /// Whether any server could have given it.
    fn is_possible(&self) -> bool;
}

/// All of them.
#[derive(Clone, Debug)]
pub struct LeaseStore {
    directory: PathBuf,
}

impl LeaseStore {
    /// In this directory, which is made when it is needed.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.join("leases") }
    }

    /// The lease of the last time. One that cannot be read is as none: the file may be cut off or of another version.
    pub fn load<L: Keep>(&self, mac: Mac) -> Option<L> {
        let lease: L = serde_json::from_slice(&std::fs::read(self.path::<L>(mac)).ok()?).ok()?;
        lease.is_possible().then_some(lease)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If the file cannot be written; the one of before is there then.
    pub fn save<L: Keep>(&self, mac: Mac, lease: &L) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        files::write_atomically(&self.path::<L>(mac), &serde_json::to_vec(lease)?)
    }

    /// A server has refused it: never ask for it again.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn forget<L: Keep>(&self, mac: Mac) -> io::Result<()> {
        match std::fs::remove_file(self.path::<L>(mac)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path<L: Keep>(&self, mac: Mac) -> PathBuf {
        let name: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(name + L::SUFFIX)
    }
}

/// Whether a lease with this end is to be written down although it differs in nothing else from the one that is kept: that must
/// not outlast it.
pub fn lags(kept: Duration, end: Duration) -> bool {
    end.saturating_add(ROUNDED) < kept || end.saturating_sub(kept) > SAVED_APART
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Number(u8);

    impl Keep for Number {
        const SUFFIX: &'static str = "-n.json";

        fn is_possible(&self) -> bool {
            self.0 > 0
        }
    }

    #[test]
    fn a_kept_lease_is_found_again_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(directory.path());
        assert_eq!(store.load::<Number>([2; 6]), None);
        store.save([2; 6], &Number(7)).unwrap();
        assert_eq!(store.load([2; 6]), Some(Number(7)));
        assert_eq!(store.load::<Number>([3; 6]), None);
        std::fs::write(directory.path().join("leases/030303030303-n.json"), b"{\"addr").unwrap();
        assert_eq!(store.load::<Number>([3; 6]), None);
        store.save([3; 6], &Number(0)).unwrap();
        assert_eq!(store.load::<Number>([3; 6]), None, "nobody could have given it");
        store.forget::<Number>([2; 6]).unwrap();
        store.forget::<Number>([2; 6]).unwrap();
        assert_eq!(store.load::<Number>([2; 6]), None);
    }

    #[test]
    fn a_lease_is_written_down_where_it_ends_earlier_or_much_later() {
        let seconds = Duration::from_secs;
        let ends = [(300, true), (995, true), (999, false), (1000, false), (1600, false), (1601, true)];
        for (end, expected) in ends {
            assert_eq!(lags(seconds(1000), seconds(end)), expected, "{end}");
        }
        assert!(lags(Duration::MAX, seconds(1000)) && !lags(Duration::MAX, Duration::MAX));
    }
}
