//! The program's listener for events: user code, told on a callback thread. And what else is to be
//! dropped on one.

use std::any::Any;
use std::fmt;

use super::panics::guarded;
use crate::event::ProducerEvent;
use crate::sync::Arc;

/// What the program gave beside callbacks. The callback threads have it to themselves, so that its
/// destructors, which are user code, run on one of them.
#[derive(Clone, Default)]
pub(crate) struct Guests {
    pub(crate) listener: Option<EventListener>,
    /// What others use and are not to be the last to drop.
    pub(crate) kept: Option<Arc<dyn Any + Send + Sync>>,
}

/// The program's closure for events.
#[derive(Clone)]
pub(crate) struct EventListener(Arc<dyn Fn(&ProducerEvent) + Send + Sync>);

impl EventListener {
    pub(crate) fn new(listener: impl Fn(&ProducerEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tells it, where user code may run. `Err` is its panic.
    pub(super) fn tell(&self, event: &ProducerEvent) -> Result<(), String> {
        guarded(|| (self.0)(event))
    }
}

impl fmt::Debug for EventListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventListener")
    }
}
