//! The resolver of containers and of the machine: [`server`] listens by its [`sockets`] on every bridge and on the loopback, and answers names
//! of containers from the [`directory`]; other questions go by [`forward`] to the host's servers, which [`upstream`] chooses,
//! as many at a time as an [`allowance`] has places, and their answers are kept in the [`cache`] as long as their [`records`]
//! hold. Answers leave by the [`outbox`]. [`message`] is the encoding.

mod allowance;
mod cache;
pub mod directory;
mod forward;
mod message;
mod outbox;
mod records;
pub mod server;
mod sockets;
pub mod upstream;

/// A message as a query and as an answer, for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    if let Some(query) = message::Query::read(bytes) {
        let again = message::Query::read(&query.forwarded());
        assert_eq!(again.map(|query| query.key()), Some(query.key()));
        assert!(query.deliver(bytes.to_vec(), false).len() <= bytes.len());
    }
    let _refusal = message::refusal(bytes);
    let mut cache = cache::Cache::default();
    let now = std::time::Duration::from_secs(1);
    cache.keep(b"key".to_vec(), bytes, now);
    if let Some(answer) = cache.find(b"key", now) {
        assert_eq!(answer.len(), bytes.len());
        assert!(records::holds(&answer).is_some());
    }
}
