//! Mount options: from the words of fstab and of the specification to what the kernel takes. Pure.

use crate::sys::mount::{MountAttributes, attribute};

/// What one mount's options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// For the mount itself.
    pub attributes: MountAttributes,
    /// For the mount and everything below it.
    pub recursive: MountAttributes,
    /// `MS_SHARED` and its kin, and whether below as well; in the order given.
    pub propagation: Vec<(u64, bool)>,
    /// A bind mount, and whether with what is mounted below the source.
    pub bind: Option<bool>,
    /// Flags of the file system, not of the mount.
    pub superblock: Vec<&'static str>,
    /// Whether to map ids, and whether below as well.
    pub id_map: Option<bool>,
    /// Change the mount that is there already.
    pub remount: bool,
    /// Fill a new tmpfs with what the directory has in the image.
    pub copy_up: bool,
    /// Everything else is the file system's own: `key` or `key=value`.
    pub data: Vec<(String, Option<String>)>,
}

/// What a word does.
#[derive(Clone, Copy)]
enum Effect {
    /// Sets and clears `MOUNT_ATTR_*`; the recursive form is the word with an `r` before it.
    Attribute {
        set: u64,
        clear: u64,
    },
    /// `MS_*`, recursively or not.
    Propagation(libc::c_ulong, bool),
    Bind(bool),
    Superblock(&'static str),
    IdMap(bool),
    CopyUp,
    Remount,
    /// Means something to mount(8) only, or is the default.
    Nothing,
}

const fn set(bits: u64) -> Effect {
    Effect::Attribute { set: bits, clear: 0 }
}

const fn clear(bits: u64) -> Effect {
    Effect::Attribute { set: 0, clear: bits }
}

/// One of the three-bit field of access times.
const fn access_time(value: u64) -> Effect {
    Effect::Attribute { set: value, clear: attribute::ACCESS_TIME }
}

/// Words with a recursive form.
const ATTRIBUTES: &[(&str, Effect)] = &[
    ("ro", set(attribute::READ_ONLY)),
    ("rw", clear(attribute::READ_ONLY)),
    ("nosuid", set(attribute::NO_SUID)),
    ("suid", clear(attribute::NO_SUID)),
    ("nodev", set(attribute::NO_DEVICES)),
    ("dev", clear(attribute::NO_DEVICES)),
    ("noexec", set(attribute::NO_EXEC)),
    ("exec", clear(attribute::NO_EXEC)),
    ("nodiratime", set(attribute::NO_DIRECTORY_ACCESS_TIME)),
    ("diratime", clear(attribute::NO_DIRECTORY_ACCESS_TIME)),
    ("noatime", access_time(attribute::NO_ACCESS_TIME)),
    ("atime", access_time(0)),
    ("relatime", access_time(0)),
    ("norelatime", access_time(0)),
    ("strictatime", access_time(attribute::STRICT_ACCESS_TIME)),
    ("nostrictatime", access_time(0)),
    ("nosymfollow", set(attribute::NO_SYMLINK_FOLLOW)),
    ("symfollow", clear(attribute::NO_SYMLINK_FOLLOW)),
];

/// Words without one.
const OTHERS: &[(&str, Effect)] = &[
    ("bind", Effect::Bind(false)),
    ("rbind", Effect::Bind(true)),
    ("shared", Effect::Propagation(libc::MS_SHARED, false)),
    ("rshared", Effect::Propagation(libc::MS_SHARED, true)),
    ("slave", Effect::Propagation(libc::MS_SLAVE, false)),
    ("rslave", Effect::Propagation(libc::MS_SLAVE, true)),
    ("private", Effect::Propagation(libc::MS_PRIVATE, false)),
    ("rprivate", Effect::Propagation(libc::MS_PRIVATE, true)),
    ("unbindable", Effect::Propagation(libc::MS_UNBINDABLE, false)),
    ("runbindable", Effect::Propagation(libc::MS_UNBINDABLE, true)),
    ("sync", Effect::Superblock("sync")),
    ("dirsync", Effect::Superblock("dirsync")),
    ("lazytime", Effect::Superblock("lazytime")),
    ("mand", Effect::Superblock("mand")),
    ("idmap", Effect::IdMap(false)),
    ("ridmap", Effect::IdMap(true)),
    ("tmpcopyup", Effect::CopyUp),
    ("remount", Effect::Remount),
    ("async", Effect::Nothing),
    ("defaults", Effect::Nothing),
    ("loud", Effect::Nothing),
    ("nolazytime", Effect::Nothing),
    ("nomand", Effect::Nothing),
    // fsconfig(2) has nothing for these two of mount(2)'s flags: file systems decide the one, the other is about messages.
    ("iversion", Effect::Nothing),
    ("silent", Effect::Nothing),
    ("noiversion", Effect::Nothing),
];

/// Every word that is not the file system's own, for `features`.
#[must_use]
pub fn known_options() -> Vec<String> {
    let plain = ATTRIBUTES.iter().chain(OTHERS).map(|(word, _)| (*word).to_owned());
    let mut words: Vec<String> = plain.chain(ATTRIBUTES.iter().map(|(word, _)| format!("r{word}"))).collect();
    words.sort();
    words.dedup();
    words
}

impl Options {
    /// The later word wins where two contradict each other.
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut this = Self::default();
        for word in words {
            this.add(word);
        }
        this
    }

    fn add(&mut self, word: &str) {
        let find = |table: &[(&str, Effect)], word: &str| {
            table.iter().find(|(known, _)| *known == word).map(|(_, effect)| *effect)
        };
        if let Some(Effect::Attribute { set, clear }) = find(ATTRIBUTES, word) {
            change(&mut self.attributes, set, clear);
            return;
        }
        let recursive = word.strip_prefix('r').and_then(|rest| find(ATTRIBUTES, rest));
        if let Some(Effect::Attribute { set, clear }) = recursive {
            change(&mut self.recursive, set, clear);
            return;
        }
        match find(OTHERS, word) {
            Some(Effect::Propagation(kind, recursive)) => self.propagation.push((kind, recursive)),
            Some(Effect::Bind(recursive)) => self.bind = Some(recursive),
            Some(Effect::Superblock(flag)) => self.superblock.push(flag),
            Some(Effect::IdMap(recursive)) => self.id_map = Some(recursive),
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::Remount) => self.remount = true,
            Some(Effect::Nothing) => {}
            Some(Effect::Attribute { .. }) | None => self.data.push(match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }),
        }
    }

    /// Whether the mount is read-only.
    pub(crate) fn read_only(&self) -> bool {
        self.attributes.set & attribute::READ_ONLY != 0
    }
}

/// Adds a change to earlier ones: what it sets is no longer cleared, what it clears no longer set. Of the field of
/// access times the kernel wants all of it cleared to set any of it.
fn change(attributes: &mut MountAttributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
    if attributes.set & attribute::ACCESS_TIME != 0 {
        attributes.clear |= attribute::ACCESS_TIME;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_later_word_wins() {
        assert!(!parse(&["ro", "rw"]).read_only());
        assert!(parse(&["rw", "ro"]).read_only());
        let options = parse(&["noatime", "strictatime"]);
        assert_eq!(options.attributes.set, attribute::STRICT_ACCESS_TIME);
        assert_eq!(options.attributes.clear, attribute::ACCESS_TIME);
    }

    #[test]
    fn a_recursive_word_leaves_the_plain_attributes_alone() {
        let options = parse(&["rbind", "rro", "rnosuid"]);
        assert_eq!(options.recursive.set, attribute::READ_ONLY | attribute::NO_SUID);
        assert_eq!(options.attributes, MountAttributes::default());
        assert_eq!(options.bind, Some(true));
    }

    #[test]
    fn what_is_not_known_goes_to_the_file_system() {
        let options = parse(&["mode=1777", "size=65536k", "newinstance", "relatime"]);
        let expected = [("mode", Some("1777")), ("size", Some("65536k")), ("newinstance", None)]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(options.data, expected);
    }

    proptest! {
        #[test]
        fn nothing_is_both_set_and_cleared_but_access_times(
            words in proptest::collection::vec(proptest::sample::select(known_options()), 0..8),
        ) {
            let options = Options::parse(&words);
            for attributes in [options.attributes, options.recursive] {
                prop_assert_eq!(attributes.set & attributes.clear & !attribute::ACCESS_TIME, 0);
                let access_time = attributes.set & attribute::ACCESS_TIME;
                prop_assert!(access_time == 0 || attributes.clear & attribute::ACCESS_TIME == attribute::ACCESS_TIME);
            }
            prop_assert!(options.data.is_empty());
        }

        #[test]
        fn any_word_is_taken(words in proptest::collection::vec(".{0,20}", 0..5)) {
            let _ = Options::parse(&words);
        }
    }
}
