//! The newest head.

use damocles_core::{
    Context,
    chain::{BoxStream, ChainClient, HeadChange, TipsetRef},
};
use futures::{FutureExt, StreamExt};
use std::fmt;

/// Follows a chain by its newest head: what was missed while the caller worked is left out.
pub(crate) struct Heads(BoxStream<HeadChange>);

impl Heads {
    pub(crate) fn of(chain: &dyn ChainClient) -> Self {
        Self(chain.head_changes())
    }

    /// The next head, the newest there is; none when `cx` was cancelled or the stream ended against its contract.
    pub(crate) async fn next(&mut self, cx: &Context) -> Option<TipsetRef> {
        let mut newest = None;
        loop {
            let change = match newest {
                None => cx.cancel.run_until_cancelled(self.0.next()).await.flatten()?,
                // Without waiting: what has come meanwhile.
                Some(_) => match self.0.next().now_or_never().flatten() {
                    Some(change) => change,
                    None => return newest,
                },
            };
            // A tipset that was taken back says nothing until another is applied in its place.
            if let HeadChange::Apply(head) = change {
                newest = Some(head);
            }
        }
    }
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heads")
    }
}
