//! Wakes the consumer's thread: a handler has returned, or Kafka has delivered.

use std::sync::mpsc;
use std::thread;
use std::thread::Thread;
use std::time::Duration;

/// Wakes the thread that created it.
#[derive(Clone, Debug)]
pub(super) struct Wakeup(Thread);

impl Wakeup {
    pub(super) fn new() -> Self {
        Self(thread::current())
    }

    /// Ends the current wait or, if there is none, the next one.
    pub(super) fn wake(&self) {
        self.0.unpark();
    }

    /// Waits until the thread is woken, or for this time. It may return earlier.
    pub(super) fn wait(time: Duration) {
        thread::park_timeout(time);
    }
}

/// Sends to the thread and wakes it.
#[derive(Debug)]
pub(super) struct Sender<T> {
    sender: mpsc::Sender<T>,
    wakeup: Wakeup,
}

impl<T> Sender<T> {
    pub(super) const fn new(sender: mpsc::Sender<T>, wakeup: Wakeup) -> Self {
        Self { sender, wakeup }
    }

    /// The thread may have ended: then nothing is sent.
    pub(super) fn send(&self, value: T) {
        if self.sender.send(value).is_ok() {
            self.wakeup.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wakeup: self.wakeup.clone() }
    }
}
