use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::StoreError;

/// A mutex that tells a thread which already holds it, instead of letting it wait for itself.
///
/// A panic of the holder does not close the gate: what lies behind it rolls back by itself.
#[derive(Debug, Default)]
pub(crate) struct Gate<T> {
    value: Mutex<T>,
    holder: Mutex<Option<ThreadId>>,
}

#[derive(Debug)]
pub(crate) struct Entered<'a, T> {
    value: MutexGuard<'a, T>,
    holder: &'a Mutex<Option<ThreadId>>,
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        let holder = Mutex::new(None);
        let value = Mutex::new(value);
        Self { value, holder }
    }

    pub(crate) fn enter(&self) -> Result<Entered<'_, T>, StoreError> {
        let me = Some(thread::current().id());
        if *lock(&self.holder) == me {
            return Err(StoreError::Nested);
        }
        let value = lock(&self.value);
        *lock(&self.holder) = me;
        let holder = &self.holder;
        Ok(Entered { value, holder })
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        *lock(self.holder) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
