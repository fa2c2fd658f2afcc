//! The places of a socket's clients, and who gives one up when all are taken.
//!
//! Who has just connected waits for a place. If none becomes free, the client that has been idle longest goes: one that has
//! got what it asked for and only stays, after [`IDLE`]; if there is none of these, also one that waits for an answer, for
//! signals, or for what it was given a descriptor of, after [`ENGAGED`]. And whoever has waited for [`BUSY`] is let in for one
//! that does nothing but call, however often. So nobody locks the others out.
//!
//! The sockets of containers have few places each, and few more in all: whoever comes over one needs a place of both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A client that pauses for less is at work, such as a script's.
const IDLE: Duration = Duration::from_secs(1);

/// As long as a client may leave its answers unread.
const ENGAGED: Duration = Duration::from_secs(30);

/// What a client gets that only calls, when it never pauses: a script's worth of work, for which another has waited.
const BUSY: Duration = Duration::from_secs(5);

/// How often it is looked who may go while somebody waits.
const LOOK: Duration = Duration::from_millis(250);

/// The places of a socket.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Activity>>>,
    /// Of all sockets of its kind.
    shared: Option<Arc<Places>>,
}

/// A client's place, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    /// What its client does.
    pub activity: Arc<Activity>,
    /// Of the socket, and of all of its kind.
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// What a client does, as its connection shows it.
#[derive(Debug)]
pub struct Activity {
    now: Mutex<Now>,
    leave: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    /// When bytes went to or fro.
    last: Instant,
    /// Whether its last message has no answer yet.
    asks: bool,
    /// Whether it wants signals or was given a descriptor.
    engaged: bool,
}

impl Places {
    /// So many.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), taken: Mutex::new(Vec::new()), shared: None }
    }

    /// So many of these.
    pub fn of(shared: &Arc<Self>, count: usize) -> Self {
        Self { shared: Some(Arc::clone(shared)), ..Self::new(count) }
    }

    /// Waits for a place.
    pub async fn take(&self) -> Place {
        let own = self.permit().await;
        let shared = match &self.shared {
            Some(shared) => Some(shared.permit().await),
            None => None,
        };
        let activity = Arc::new(Activity::begin());
        for places in [Some(self), self.shared.as_deref()].into_iter().flatten() {
            let mut taken = lock(&places.taken);
            taken.retain(|activity| activity.strong_count() > 0);
            taken.push(Arc::downgrade(&activity));
        }
        Place { activity, _permits: (own, shared) }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let begun = Instant::now();
        // One for all looks: who has waited longest is the next, whoever else comes.
        let mut free = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        loop {
            match tokio::time::timeout(LOOK, &mut free).await {
                Ok(Ok(permit)) => return permit,
                // It is never closed.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => self.send_away(Instant::now(), begun.elapsed()),
            }
        }
    }

    /// Asks one client to go, if one may, for one that has waited so long.
    fn send_away(&self, at: Instant, waited: Duration) {
        let mut taken = lock(&self.taken);
        taken.retain(|activity| activity.strong_count() > 0);
        let present = taken.iter().filter_map(Weak::upgrade).map(|activity| (activity.now(), activity));
        let may_go = present.filter(|(now, _)| now.may_go(at, waited));
        let longest = may_go.min_by_key(|(now, _)| (now.engaged, now.asks, now.last));
        if let Some((_, activity)) = longest {
            activity.leave.notify_one();
        }
    }
}

impl Now {
    fn may_go(self, at: Instant, waited: Duration) -> bool {
        let idle = at.saturating_duration_since(self.last);
        let enough = if self.asks || self.engaged { ENGAGED } else { IDLE };
        // Who has asked long ago waits for one answer, and is not one that only calls.
        let stays = self.engaged || (self.asks && idle >= BUSY);
        idle >= enough || waited >= if stays { ENGAGED } else { BUSY }
    }
}

impl Activity {
    fn begin() -> Self {
        let now = Now { last: Instant::now(), asks: false, engaged: false };
        Self { now: Mutex::new(now), leave: Notify::new() }
    }

    fn now(&self) -> Now {
        *lock(&self.now)
    }

    /// Bytes have come.
    pub fn sends(&self) {
        lock(&self.now).last = Instant::now();
    }

    /// They were a whole message.
    pub fn asks(&self) {
        lock(&self.now).asks = true;
    }

    /// Bytes have gone to it, with descriptors or without.
    pub fn gets(&self, descriptors: bool) {
        let mut now = lock(&self.now);
        (now.last, now.asks) = (Instant::now(), false);
        now.engaged |= descriptors;
    }

    /// It wants signals.
    pub fn subscribes(&self) {
        lock(&self.now).engaged = true;
    }

    /// Waits until another client needs its place.
    pub async fn is_to_leave(&self) {
        self.leave.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_sent_away(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.activity.is_to_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn who_only_stays_goes_before_who_waits_for_something() {
        let places = Places::new(3);
        let (asks, listens, stays) = (places.take().await, places.take().await, places.take().await);
        asks.activity.asks();
        listens.activity.subscribes();
        let then = |time| Instant::now() + time;
        places.send_away(Instant::now(), Duration::ZERO);
        assert!(!is_sent_away(&stays).await, "it has only just come");
        places.send_away(then(IDLE), LOOK);
        assert!(is_sent_away(&stays).await);
        assert!(!is_sent_away(&asks).await && !is_sent_away(&listens).await);
        drop(stays);
        places.send_away(then(IDLE), LOOK);
        assert!(!is_sent_away(&asks).await && !is_sent_away(&listens).await);
        places.send_away(then(ENGAGED), LOOK);
        assert!(is_sent_away(&asks).await, "the longest of them");
        asks.activity.gets(true);
        places.send_away(then(ENGAGED), LOOK);
        assert!(is_sent_away(&listens).await && !is_sent_away(&asks).await);
    }

    #[tokio::test]
    async fn who_calls_without_a_pause_goes_for_one_that_has_waited() {
        let places = Places::new(2);
        let (listens, calls) = (places.take().await, places.take().await);
        listens.activity.subscribes();
        calls.activity.asks();
        places.send_away(Instant::now(), BUSY - LOOK);
        assert!(!is_sent_away(&calls).await);
        places.send_away(Instant::now(), BUSY);
        assert!(is_sent_away(&calls).await && !is_sent_away(&listens).await);
        drop(calls);
        places.send_away(Instant::now(), BUSY);
        assert!(!is_sent_away(&listens).await);
        places.send_away(Instant::now(), ENGAGED);
        assert!(is_sent_away(&listens).await);
    }

    #[tokio::test]
    async fn sockets_with_places_of_their_own_share_those_of_all() {
        let all = Arc::new(Places::new(3));
        let (first, second) = (Places::of(&all, 2), Places::of(&all, 2));
        let (stays, listens) = (first.take().await, first.take().await);
        listens.activity.subscribes();
        let other = second.take().await;
        other.activity.subscribes();
        let waits = second.take();
        tokio::pin!(waits);
        assert!(tokio::time::timeout(Duration::ZERO, &mut waits).await.is_err(), "there are two, but three in all");
        all.send_away(Instant::now() + IDLE, LOOK);
        assert!(is_sent_away(&stays).await && !is_sent_away(&listens).await && !is_sent_away(&other).await);
        drop(stays);
        let last = waits.await;
        drop((listens, other));
        let again = (first.take().await, first.take().await);
        assert_eq!(all.free.available_permits(), 0);
        drop((last, again));
        assert_eq!([&all.free, &first.free, &second.free].map(|free| free.available_permits()), [3, 2, 2]);
    }

    #[tokio::test]
    async fn who_waits_for_one_answer_is_not_one_that_only_calls() {
        let places = Places::new(1);
        let waits = places.take().await;
        waits.activity.asks();
        places.send_away(Instant::now() + BUSY, BUSY);
        assert!(!is_sent_away(&waits).await);
        places.send_away(Instant::now() + ENGAGED, BUSY);
        assert!(is_sent_away(&waits).await);
    }
}
