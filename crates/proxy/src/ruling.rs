//! What holds now of what may change while the proxy runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::rules::Rules;
use crate::sealing::Sealing;

/// Rules, and what seals and opens as they say.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) rules: Rules,
    pub(crate) sealing: Arc<dyn Sealing>,
}

/// What is in force. Each message is asked about anew, so that none goes by a rule that is no more.
pub(crate) struct Ruling(RwLock<Arc<InForce>>);

impl fmt::Debug for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ruling").field(&self.now()).finish()
    }
}

impl Ruling {
    pub(crate) fn new(rules: Rules, sealing: Arc<dyn Sealing>) -> Self {
        Self(RwLock::new(Arc::new(InForce { rules, sealing })))
    }

    pub(crate) fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, rules: Rules, sealing: Arc<dyn Sealing>) {
        let next = Arc::new(InForce { rules, sealing });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}
