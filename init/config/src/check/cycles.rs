//! Circles in what needs what.

use std::collections::{BTreeMap, BTreeSet};

/// One step of a circle: who, and which of its needs leads on.
pub(super) type Step<'a, N> = (&'a N, usize);

/// Every circle that a walk along the needs runs into; each node is left once. `next` is what a node needs, by its place;
/// `None` behind the last. Without recursion: a chain can be as long as the file allows.
pub(super) fn cycles<'a, N: Ord>(
    starts: impl Iterator<Item = &'a N>,
    next: impl Fn(&'a N, usize) -> Option<&'a N>,
) -> Vec<Vec<Step<'a, N>>> {
    let mut left: BTreeSet<&N> = BTreeSet::new();
    let mut found = Vec::new();
    for start in starts {
        let mut trail: Vec<Step<N>> = Vec::new();
        // Where in the trail a node is.
        let mut position: BTreeMap<&N, usize> = BTreeMap::new();
        if !left.contains(start) {
            position.insert(start, 0);
            trail.push((start, 0));
        }
        while let Some((name, index)) = trail.last_mut() {
            let Some(needed) = next(name, *index) else {
                left.insert(*name);
                position.remove(*name);
                trail.pop();
                if let Some((_, index)) = trail.last_mut() {
                    *index += 1;
                }
                continue;
            };
            if let Some(cycle) = position.get(needed).and_then(|first| trail.get(*first..)) {
                found.push(cycle.to_vec());
            } else if !left.contains(needed) {
                position.insert(needed, trail.len());
                trail.push((needed, 0));
                continue;
            }
            if let Some((_, index)) = trail.last_mut() {
                *index += 1;
            }
        }
    }
    found
}

/// `a -> b -> a`; a long circle by its beginning.
pub(super) fn shown<N: AsRef<str>>(cycle: &[Step<N>]) -> String {
    let mut names: Vec<&str> = cycle.iter().map(|(name, _)| name.as_ref()).take(8).collect();
    let start = names.first().copied().unwrap_or_default();
    names.push(if cycle.len() > names.len() { "..." } else { start });
    names.join(" -> ")
}
