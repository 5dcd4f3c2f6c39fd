//! NodePatches of nodes that have gone, until it is written down what that says of their patch: the
//! garbage collector may take them before anybody has looked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::seen::SeenPatch;

/// How many are kept. Beyond that the oldest go.
const MOST: usize = 1024;

/// The NodePatches that were deleted with an instruction that had not settled.
#[derive(Default)]
pub struct Departed(Mutex<Vec<Arc<SeenPatch>>>);

impl Departed {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<SeenPatch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This one was deleted.
    pub fn add(&self, patch: Arc<SeenPatch>) {
        let mut departed = self.lock();
        if departed.len() >= MOST {
            departed.remove(0);
        }
        departed.push(patch);
    }

    /// Those of which nothing is written down yet.
    pub fn all(&self) -> Vec<Arc<SeenPatch>> {
        self.lock().clone()
    }

    /// These are written down.
    pub fn forget(&self, written: &[Arc<SeenPatch>]) {
        self.lock().retain(|patch| !written.iter().any(|other| Arc::ptr_eq(patch, other)));
    }
}
