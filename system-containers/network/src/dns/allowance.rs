//! How many questions go on to other servers at the same time. Each network has places of its own for them, as the machine
//! has, and no container has all of its network's: who asks for what nobody answers takes nothing from anybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of one network, or of the machine: each takes a socket, and a few thousand bytes.
const MOST: usize = 512;
/// Of one container.
const MOST_OF_ONE: usize = 64;

/// The places of a network.
#[derive(Debug)]
pub struct Allowance {
    most_of_one: usize,
    /// By container; all that are none are one.
    taken: Mutex<BTreeMap<Option<String>, usize>>,
}

/// The place of one question, as long as it lives.
#[derive(Debug)]
pub struct Place {
    allowance: Arc<Allowance>,
    container: Option<String>,
}

impl Allowance {
    /// For the containers of a network.
    pub fn of_network() -> Arc<Self> {
        Arc::new(Self { most_of_one: MOST_OF_ONE, taken: Mutex::default() })
    }

    /// For the machine's own programs, which are all one.
    pub fn of_machine() -> Arc<Self> {
        Arc::new(Self { most_of_one: MOST, taken: Mutex::default() })
    }

    /// Nothing if there is none for this container: its question is answered with an error, which resolvers ask again after.
    pub fn take(self: &Arc<Self>, container: Option<String>) -> Option<Place> {
        let mut taken = self.taken();
        let of_one = taken.get(&container).copied().unwrap_or(0);
        if of_one >= self.most_of_one || taken.values().sum::<usize>() >= MOST {
            return None;
        }
        taken.insert(container.clone(), of_one + 1);
        Some(Place { allowance: self.clone(), container })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<Option<String>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.allowance.taken();
        match taken.get_mut(&self.container) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.container)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_places_of_a_network_and_they_come_back() {
        let network = Allowance::of_network();
        let take = |name: &str, times: usize| -> Vec<Place> {
            (0..times).filter_map(|_| network.take(Some(name.to_owned()))).collect()
        };
        let greedy = take("greedy", 1000);
        assert_eq!(greedy.len(), MOST_OF_ONE);
        assert_eq!(take("web", 3).len(), 3);
        assert!(network.take(None).is_some(), "a stranger");
        drop(greedy);
        let all: Vec<Place> = (0..20).flat_map(|number| take(&format!("web-{number}"), MOST_OF_ONE)).collect();
        assert_eq!(all.len(), MOST);
        drop(all);
        assert!(network.taken().is_empty());
        let machine = Allowance::of_machine();
        assert_eq!((0..1000).filter_map(|_| machine.take(None)).collect::<Vec<_>>().len(), MOST);
    }
}
