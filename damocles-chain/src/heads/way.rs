//! The way from one head to another.

use super::{follow::Shared, link::Link};
use damocles_core::chain::{ChainError, ChainErrorKind, HeadChange, TipsetKey};

/// The most tipsets that a way leads over: finality.
pub(super) const LONGEST_WAY: usize = 900;

/// Why a way was not found.
#[derive(Debug)]
pub(super) enum Astray {
    /// Nobody who was asked has this tipset.
    Missing(TipsetKey),
    /// A tipset and its parent, or what was told of a tipset twice: one of both is wrong.
    Contradiction(ChainError),
    /// Something else.
    Failed(ChainError),
}

impl From<ChainError> for Astray {
    fn from(error: ChainError) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    /// What has to be reverted and applied to come from one head to another.
    pub(super) async fn way(&self, from: &Link, to: &Link) -> Result<Vec<HeadChange>, Astray> {
        let (mut reverts, mut applies) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (from.clone(), to.clone());
        while old.at.key != new.at.key {
            // After a long absence, the way is neither held in memory nor waited for.
            if reverts.len().max(applies.len()) >= LONGEST_WAY {
                return self.give_up(from, to, &[&old, &new]).await;
            }
            let (old_epoch, new_epoch) = (old.at.epoch, new.at.epoch);
            if new_epoch >= old_epoch {
                applies.push(HeadChange::Apply(new.at.clone()));
                match self.known_parent(&new, from).await? {
                    Some(parent) => new = parent,
                    None => return self.give_up(from, to, &[&new, &old]).await,
                }
            }
            if old_epoch >= new_epoch {
                reverts.push(HeadChange::Revert(old.at.clone()));
                match self.known_parent(&old, to).await? {
                    Some(parent) => old = parent,
                    None => return self.give_up(from, to, &[&old, &new]).await,
                }
            }
        }
        if old.at.epoch != new.at.epoch {
            self.kept.lock().remove(&old.at.key);
            return Err(contradiction(&old.at.key, "it has two heights"));
        }
        reverts.extend(applies.into_iter().rev());
        Ok(reverts)
    }

    /// The change between two chains that have nothing in common, unless a tipset with a wrong height led the walk past
    /// what they have: it would be one of the last that were walked to.
    async fn give_up(&self, from: &Link, to: &Link, last: &[&Link]) -> Result<Vec<HeadChange>, Astray> {
        for link in last {
            let key = &link.at.key;
            let again = match self.ask_again(key).await {
                Err(e) if e.kind() == ChainErrorKind::NotFound => return Err(Astray::Missing(key.clone())),
                again => again?,
            };
            if again.at != link.at {
                self.kept.lock().remove(key);
                return Err(contradiction(key, "it has two heights"));
            }
            self.known_parent(link, link).await?;
        }
        Ok(unrelated(from, to))
    }

    /// The parent, if there is one. That nobody has it may pass, one endpoint being a tipset behind and the other one late;
    /// the other end of the way needs nobody.
    async fn known_parent(&self, link: &Link, end: &Link) -> Result<Option<Link>, Astray> {
        match (self.parent(link).await, &link.parents) {
            (Err(Astray::Failed(e)), Some(key)) if e.kind() == ChainErrorKind::NotFound => {
                if link.is_above(end) {
                    Ok(Some(end.clone()))
                } else {
                    Err(Astray::Missing(key.clone()))
                }
            }
            (parent, _) => parent,
        }
    }

    /// The parent, if there is one. A link is kept once its parent was seen below it.
    pub(super) async fn parent(&self, link: &Link) -> Result<Option<Link>, Astray> {
        let Some(key) = &link.parents else { return Ok(None) };
        let kept = self.kept.lock().get(key);
        if let Some(parent) = kept.filter(|parent| link.is_above(parent)) {
            self.kept.lock().insert(link.clone());
            return Ok(Some(parent));
        }
        let mut parent = self.source.tipset(key).await?;
        if !link.is_above(&parent) {
            parent = self.ask_again(key).await?;
        }
        if !link.is_above(&parent) {
            // One of both is wrong, and neither is relied on: a walk has to come down.
            let mut kept = self.kept.lock();
            kept.remove(key);
            kept.remove(&link.at.key);
            return Err(contradiction(&link.at.key, "its parent is not below it"));
        }
        let mut all = self.kept.lock();
        if all.get(key).is_some_and(|kept| kept != parent) {
            all.remove(key);
        }
        all.insert(link.clone());
        Ok(Some(parent))
    }

    /// A tipset as the node tells it now.
    pub(super) async fn ask_again(&self, key: &TipsetKey) -> Result<Link, ChainError> {
        self.source.doubt(key);
        self.source.tipset(key).await
    }
}

pub(super) fn contradiction(key: &TipsetKey, what: &'static str) -> Astray {
    let error = ChainError::new(ChainErrorKind::Malformed, "follow heads");
    Astray::Contradiction(error.with("tipset", key).with("what", what))
}

/// The change between two chains that have nothing in common.
pub(super) fn unrelated(from: &Link, to: &Link) -> Vec<HeadChange> {
    vec![HeadChange::Revert(from.at.clone()), HeadChange::Apply(to.at.clone())]
}
