//! A box that is shared by its clones until one of them is changed.
//!
//! What is large is stored in one. So a snapshot has a large value at once, and writes it without a lock (copies.rs), and COPY
//! copies nothing. Whoever is the first to change a value that is shared copies it as a whole first.
//!
//! **How Redis does it**: COPY copies each element, and for a snapshot the kernel copies the pages that change.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

#[derive(Clone)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }

    /// Whether a change would copy it. So whoever may find nothing to do looks first.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}
