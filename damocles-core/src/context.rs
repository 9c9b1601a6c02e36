//! What every long call is given.

use crate::{CancellationToken, Event, EventSink, NullSink};
use std::sync::Arc;

/// The surroundings of one call: how to be stopped and where to report.
#[derive(Clone, Debug)]
pub struct Context {
    /// Fires when the caller wants the call to wind down.
    pub cancel: CancellationToken,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
}

impl Context {
    /// A context that reports to `events`.
    pub fn new(events: Arc<dyn EventSink>) -> Self {
        Self { cancel: CancellationToken::new(), events }
    }

    /// A context that is never cancelled and reports nowhere.
    pub fn detached() -> Self {
        Self::new(Arc::new(NullSink))
    }

    /// A context whose cancellation follows this one but can also fire alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { cancel: self.cancel.child_token(), events: Arc::clone(&self.events) }
    }

    /// Reports an event.
    pub fn emit(&self, event: Event) {
        self.events.emit(event);
    }
}
