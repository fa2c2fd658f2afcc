//! A socket, and the task that hears what comes there for as long as somebody holds on to this.

use std::sync::Arc;

use tokio::task::JoinHandle;

/// Both of them.
#[derive(Debug)]
pub struct Listening<S> {
    socket: Arc<S>,
    task: JoinHandle<()>,
}

impl<S> Listening<S> {
    /// Begins to hear, within a tokio runtime.
    pub fn begin<H>(socket: S, hear: impl FnOnce(Arc<S>) -> H) -> Self
    where
        H: Future<Output = ()> + Send + 'static,
    {
        let socket = Arc::new(socket);
        let task = tokio::spawn(hear(Arc::clone(&socket)));
        Self { socket, task }
    }

    /// To send by it.
    pub fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S> Drop for Listening<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
