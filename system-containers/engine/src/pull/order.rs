//! Several layers of an image at once: who takes the next one, who waits for those below, and what becomes of the others
//! when one fails.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The layers of an image, by their positions; 0 is the lowest.
#[derive(Debug)]
pub struct Order<E> {
    state: Mutex<State<E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<E> {
    /// The next one that nobody has taken.
    next: usize,
    /// Whether each is done.
    done: Vec<bool>,
    /// The lowest one that failed. Those below it go on: they are of use to the next try.
    failed: Option<(usize, E)>,
}

/// A layer below is not going to be there.
#[derive(Debug, PartialEq, Eq)]
pub struct Forsaken;

impl<E> Order<E> {
    /// Of so many layers, none of them done.
    pub fn new(count: usize) -> Self {
        Self { state: Mutex::new(State { next: 0, done: vec![false; count], failed: None }), changed: Condvar::new() }
    }

    /// The next layer to make; none if there is none, or one below it has failed.
    pub fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        let next = state.next;
        if next == state.done.len() || state.failed.is_some() {
            return None;
        }
        state.next += 1;
        Some(next)
    }

    /// Waits until all layers below this one are done.
    pub fn wait_below(&self, position: usize) -> Result<(), Forsaken> {
        let mut state = self.lock();
        loop {
            if state.failed.as_ref().is_some_and(|(failed, _)| *failed < position) {
                return Err(Forsaken);
            }
            if state.done.iter().take(position).all(|done| *done) {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A layer is there, or has failed.
    pub fn end(&self, position: usize, result: Result<(), E>) {
        let mut state = self.lock();
        match result {
            Ok(()) => state.done.iter_mut().skip(position).take(1).for_each(|done| *done = true),
            Err(error) => {
                // What fails above another is its consequence, or matters less.
                if state.failed.as_ref().is_none_or(|(failed, _)| position < *failed) {
                    state.failed = Some((position, error));
                }
            }
        }
        self.changed.notify_all();
    }

    /// What the lowest one that failed has failed with.
    pub fn finish(self) -> Result<(), E> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_is_taken_once_and_waits_for_all_below() {
        let order: Order<()> = Order::new(3);
        assert_eq!([order.take(), order.take(), order.take(), order.take()], [Some(0), Some(1), Some(2), None]);
        assert_eq!(order.wait_below(0), Ok(()));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| order.wait_below(2));
            order.end(1, Ok(()));
            order.end(0, Ok(()));
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        order.end(2, Ok(()));
        assert_eq!(order.finish(), Ok(()));
    }

    #[test]
    fn a_failure_ends_those_above_and_lets_those_below_go_on() {
        let order = Order::new(4);
        assert_eq!([order.take(), order.take(), order.take()], [Some(0), Some(1), Some(2)]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| order.wait_below(2));
            order.end(1, Err("one"));
            assert_eq!(waiting.join().unwrap(), Err(Forsaken));
        });
        order.end(2, Err("its consequence"));
        assert_eq!(order.take(), None, "nothing new begins");
        order.end(0, Ok(()));
        assert_eq!(order.wait_below(1), Ok(()));
        assert_eq!(order.finish(), Err("one"));
    }

    #[test]
    fn the_lowest_failure_is_the_one_that_is_told() {
        let order = Order::new(2);
        order.end(1, Err("above"));
        order.end(0, Err("below"));
        assert_eq!(order.finish(), Err("below"));
    }
}
