//! Where leases are kept over a restart and a reboot: a file for each kind and hardware address, so that a renamed card finds
//! its own. A link that is made has its name in that too: a VLAN has the address of its card, and another server.

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

/// Whose lease it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The link's hardware address.
    pub mac: Mac,
    /// Its name, if it is made.
    pub made: Option<&'a str>,
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
    pub fn load<L: Keep>(&self, owner: Owner<'_>) -> Option<L> {
        let lease: L = serde_json::from_slice(&std::fs::read(self.path::<L>(owner)).ok()?).ok()?;
        lease.is_possible().then_some(lease)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If the file cannot be written; the one of before is there then.
    pub fn save<L: Keep>(&self, owner: Owner<'_>, lease: &L) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        files::write_atomically(&self.path::<L>(owner), &serde_json::to_vec(lease)?)
    }

    /// A server has refused it: never ask for it again.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn forget<L: Keep>(&self, owner: Owner<'_>) -> io::Result<()> {
        match std::fs::remove_file(self.path::<L>(owner)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path<L: Keep>(&self, owner: Owner<'_>) -> PathBuf {
        let mac: String = owner.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let made = owner.made.map(|name| format!("@{name}")).unwrap_or_default();
        self.directory.join(mac + &made + L::SUFFIX)
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

    const fn card(last: u8) -> Owner<'static> {
        Owner { mac: [last; 6], made: None }
    }

    #[test]
    fn a_kept_lease_is_found_again_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(directory.path());
        assert_eq!(store.load::<Number>(card(2)), None);
        store.save(card(2), &Number(7)).unwrap();
        assert_eq!(store.load(card(2)), Some(Number(7)));
        assert_eq!(store.load::<Number>(card(3)), None);
        std::fs::write(directory.path().join("leases/030303030303-n.json"), b"{\"addr").unwrap();
        assert_eq!(store.load::<Number>(card(3)), None);
        store.save(card(3), &Number(0)).unwrap();
        assert_eq!(store.load::<Number>(card(3)), None, "nobody could have given it");
        store.forget::<Number>(card(2)).unwrap();
        store.forget::<Number>(card(2)).unwrap();
        assert_eq!(store.load::<Number>(card(2)), None);
    }

    #[test]
    fn a_link_on_a_card_has_a_lease_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(directory.path());
        let of = |name| Owner { made: Some(name), ..card(2) };
        for (owner, number) in [(card(2), 1), (of("eth0.10"), 2), (of("eth0.20"), 3)] {
            store.save(owner, &Number(number)).unwrap();
        }
        store.forget::<Number>(of("eth0.20")).unwrap();
        let kept = [card(2), of("eth0.10"), of("eth0.20")].map(|owner| store.load(owner).map(|Number(it)| it));
        assert_eq!(kept, [Some(1), Some(2), None]);
        assert!(directory.path().join("leases/020202020202-n.json").exists(), "a card's, as it always was");
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
