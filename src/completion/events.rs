//! The program's listener for events: user code, told on a callback thread.

use std::fmt;

use super::panics::guarded;
use crate::event::ProducerEvent;
use crate::sync::Arc;

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
