//! From the thread that reads to the one that draws, without either waiting for the other.

use std::sync::{Arc, Mutex, PoisonError};

/// Holds one value: a newer one takes its place. Clones are the same.
#[derive(Debug)]
pub(super) struct Latest<T>(Arc<Mutex<Option<T>>>);

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

impl<T> Latest<T> {
    /// Puts a value there; the one before, if nobody has taken it, is gone.
    pub(super) fn put(&self, value: T) {
        let before = {
            let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            place.replace(value)
        };
        // Let go of when nobody waits for the lock.
        drop(before);
    }

    /// Takes the value away.
    pub(super) fn take(&self) -> Option<T> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_wins() {
        let latest = Latest::default();
        let other = latest.clone();
        assert_eq!(other.take(), None);
        latest.put(1);
        latest.put(2);
        assert_eq!(other.take(), Some(2));
        assert_eq!(latest.take(), None);
    }
}
