//! Compiled profiles, kept for the next container with the same one.
//!
//! The key is the whole profile, so that two can never be taken for each other. A launcher is a copy of its caller: what
//! the caller has compiled before, the launcher finds in its memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Filter, SeccompError};
use crate::spec::Seccomp;

/// How many are kept: a machine has a handful of profiles, and each has some ten kilobytes.
const CAPACITY: usize = 8;

/// The profile used last comes first.
static KEPT: Mutex<Vec<(Seccomp, Arc<Filter>)>> = Mutex::new(Vec::new());

/// The filter of a profile, compiled now or before.
pub(crate) fn compiled(profile: &Seccomp) -> Result<Arc<Filter>, SeccompError> {
    // Nothing between lock and unlock can leave the list half changed.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(position) = kept.iter().position(|(known, _)| known == profile) {
        kept.get_mut(..=position).unwrap_or_default().rotate_right(1);
    } else {
        let filter = Arc::new(Filter::compile(profile)?);
        kept.truncate(CAPACITY - 1);
        kept.insert(0, (profile.clone(), filter));
    }
    let first = kept.first().map(|(_, filter)| Arc::clone(filter));
    first.map_or_else(|| Filter::compile(profile).map(Arc::new), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::default_profile;

    #[test]
    fn a_profile_is_compiled_once_and_only_some_are_kept() {
        let profile = |number: u32| {
            let mut profile = default_profile(&[]);
            profile.default_errno_ret = Some(number);
            profile
        };
        let first = compiled(&profile(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &compiled(&profile(1)).unwrap()));
        let other = compiled(&profile(2)).unwrap();
        assert_ne!(other, first);
        for number in 3..100 {
            compiled(&profile(number)).unwrap();
            assert!(Arc::ptr_eq(&other, &compiled(&profile(2)).unwrap()));
        }
        assert_eq!(KEPT.lock().unwrap().len(), CAPACITY);
        assert!(!Arc::ptr_eq(&first, &compiled(&profile(1)).unwrap()));
    }
}
