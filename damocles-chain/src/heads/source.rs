//! What is asked of a node about its head.

use super::link::{Head, Link};
use crate::{
    lotus_json::{Lotus, TipSet},
    rpc::{FeedError, HeadFeed, RpcClient},
};
use async_trait::async_trait;
use damocles_core::chain::{ChainError, TipsetKey};
use serde_json::{Value, json};
use std::{fmt, time::Duration};

const GET_TIPSET: &str = "ChainGetTipSet";

fn by_key(key: &TipsetKey) -> Value {
    json!([Lotus(key.0.clone())])
}

/// Where heads come from.
#[async_trait]
pub(crate) trait HeadSource: fmt::Debug + Send + Sync {
    /// The head now.
    async fn head(&self) -> Result<Head, ChainError>;

    /// A tipset by its key.
    async fn tipset(&self, key: &TipsetKey) -> Result<Link, ChainError>;

    /// Forgets what was answered about a tipset, if that was kept.
    fn doubt(&self, key: &TipsetKey);

    /// Opens a subscription.
    async fn subscribe(&self) -> Result<Box<dyn News>, FeedError>;
}

/// An open subscription.
#[async_trait]
pub(crate) trait News: Send {
    /// The tipsets of the next notification; none after so long without one.
    async fn next(&mut self, silence: Duration) -> Result<Option<Vec<Link>>, FeedError>;
}

#[async_trait]
impl HeadSource for RpcClient {
    async fn head(&self) -> Result<Head, ChainError> {
        let (tipset, from) = self.call_from::<TipSet>("ChainHead", json!([])).await?;
        Ok(Head { link: Link::of(&tipset), from })
    }

    async fn tipset(&self, key: &TipsetKey) -> Result<Link, ChainError> {
        let tipset: TipSet = self.call(GET_TIPSET, by_key(key)).await?;
        tipset.must_be(key)?;
        Ok(Link::of(&tipset))
    }

    fn doubt(&self, key: &TipsetKey) {
        self.forget(GET_TIPSET, &by_key(key));
    }

    async fn subscribe(&self) -> Result<Box<dyn News>, FeedError> {
        Ok(Box::new(self.head_feed().await?))
    }
}

#[async_trait]
impl News for HeadFeed {
    async fn next(&mut self, silence: Duration) -> Result<Option<Vec<Link>>, FeedError> {
        let notices = self.changes(silence).await?;
        Ok(notices.map(|notices| notices.iter().map(|notice| Link::of(&notice.val)).collect()))
    }
}
