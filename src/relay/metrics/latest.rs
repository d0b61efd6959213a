//! The last value of something, shared between threads.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// The last value. Clones share it.
#[derive(Debug)]
pub struct Latest<T>(Arc<Mutex<Option<T>>>);

impl<T: Clone> Latest<T> {
    /// Replaces the value; `None` means that there is none.
    pub fn set(&self, view: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Gives the last value.
    #[must_use]
    pub fn load(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
