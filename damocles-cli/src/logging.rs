//! Events of the libraries, written to the log.

use damocles_core::{Event, EventSink};

/// Writes events to the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSink;

impl EventSink for LogSink {
    fn emit(&self, event: Event) {
        match event {
            Event::Note { from, text } => tracing::info!(part = from, "{text}"),
            other => match serde_json::to_string(&other) {
                Ok(json) => tracing::info!(event = json),
                Err(error) => tracing::warn!(%error, "an event could not be written"),
            },
        }
    }
}
