//! The way from one head to another.

use super::{follow::Shared, link::Link};
use damocles_core::chain::{ChainError, ChainErrorKind, HeadChange};

/// The most tipsets that a way leads over: finality.
pub(super) const LONGEST_WAY: usize = 900;

impl Shared {
    /// What has to be reverted and applied to come from one head to another.
    pub(super) async fn way(&self, from: &Link, to: &Link) -> Result<Vec<HeadChange>, ChainError> {
        let (mut reverts, mut applies) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (from.clone(), to.clone());
        while old.at != new.at {
            // After a long absence, the way is neither held in memory nor waited for.
            if reverts.len().max(applies.len()) >= LONGEST_WAY {
                return Ok(unrelated(from, to));
            }
            let (old_epoch, new_epoch) = (old.at.epoch, new.at.epoch);
            if new_epoch >= old_epoch {
                applies.push(HeadChange::Apply(new.at.clone()));
                match self.known_parent(&new).await? {
                    Some(parent) => new = parent,
                    None => return Ok(unrelated(from, to)),
                }
            }
            if old_epoch >= new_epoch {
                reverts.push(HeadChange::Revert(old.at.clone()));
                match self.known_parent(&old).await? {
                    Some(parent) => old = parent,
                    None => return Ok(unrelated(from, to)),
                }
            }
        }
        reverts.extend(applies.into_iter().rev());
        Ok(reverts)
    }

    /// The parent, if there is one and the node has it: a node forgets an old chain, and one that was restored from a
    /// snapshot has less history of the new one than this has seen.
    async fn known_parent(&self, link: &Link) -> Result<Option<Link>, ChainError> {
        match self.parent(link).await {
            Err(e) if e.kind() == ChainErrorKind::NotFound => Ok(None),
            parent => parent,
        }
    }

    pub(super) async fn parent(&self, link: &Link) -> Result<Option<Link>, ChainError> {
        let Some(key) = &link.parents else { return Ok(None) };
        let kept = self.kept.lock().get(key);
        let is_kept = kept.is_some();
        let parent = match kept {
            Some(kept) => kept,
            None => self.source.tipset(key).await?,
        };
        // What was told of a head is kept as it came, so that it is doubted as well: a walk has to come down.
        if parent.at.epoch >= link.at.epoch || parent.at.key != *key {
            return Err(ChainError::new(ChainErrorKind::Malformed, "walk to parent")
                .with("tipset", &link.at.key)
                .with("parent", &parent.at.key));
        }
        if !is_kept {
            self.kept.lock().insert(parent.clone());
        }
        Ok(Some(parent))
    }
}

/// The change between two chains that have nothing in common.
fn unrelated(from: &Link, to: &Link) -> Vec<HeadChange> {
    vec![HeadChange::Revert(from.at.clone()), HeadChange::Apply(to.at.clone())]
}
