//! Claims between a pool's slots and other programs on the machine.

use super::{Asker, Claim, ClaimError, Claims, Resource, Use, may_yield};
use crate::pool::{Gate, Pass, SlotSpec};
use async_trait::async_trait;
use damocles_core::{
    Context, Error, Event, JobEvent,
    pool::{Job, PoolError, PoolErrorKind},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

/// How long a holder has to answer whether it yields. Its answer is only a promise: the end of the wait is the claim.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Claims the GPUs of a slot, and its CPUs if they are to be its own, for each of its jobs.
///
/// Who holds one of them for a task that [`may_yield`] is asked to give it back.
#[derive(Clone, Debug)]
pub struct ClaimGate {
    claims: Claims,
    asker: Option<Arc<dyn Asker>>,
    /// What this program holds: the children of one slot share it, and a pool lets no two slots have the same.
    held: Arc<Mutex<HashMap<Vec<Resource>, Weak<Claim>>>>,
}

impl ClaimGate {
    /// A gate that waits for what others hold.
    pub fn new(claims: Claims) -> Self {
        Self { claims, asker: None, held: Arc::default() }
    }

    /// The same gate, which also asks a holder to yield.
    #[must_use]
    pub fn asking(mut self, asker: Arc<dyn Asker>) -> Self {
        self.asker = Some(asker);
        self
    }

    /// Asks whoever holds something to yield, if that is something to be asked for. Once for each time it is held.
    async fn ask(&self, refused: &ClaimError, job: &Job, asked: &mut Option<super::Holder>) {
        let (Some(asker), ClaimError::Held { resource, holder: Some(holder) }) = (&self.asker, refused) else { return };
        let own = holder.pid == std::process::id();
        if own || holder.socket.is_none() || !may_yield(&holder.kind, &job.kind) || asked.as_ref() == Some(&**holder) {
            return;
        }
        *asked = Some((**holder).clone());
        match tokio::time::timeout(ASK_LIMIT, asker.ask(holder, resource, &job.kind)).await {
            Ok(Ok(yields)) => tracing::info!(%resource, holder = holder.program, yields, "asked to yield"),
            Ok(Err(error)) => tracing::warn!(%resource, holder = holder.program, error, "cannot be asked to yield"),
            Err(_) => tracing::warn!(%resource, holder = holder.program, "does not answer whether it yields"),
        }
    }

    fn describe(&self, refused: &ClaimError) -> String {
        match refused {
            ClaimError::Held { resource, holder: Some(holder) } => {
                format!("{resource} is held by {}", holder.describe(self.claims.now()))
            }
            other => other.to_string(),
        }
    }
}

/// What a slot has for itself on the whole machine.
pub fn resources_of(slot: &SlotSpec) -> Vec<Resource> {
    let placement = &slot.placement;
    let own = placement.cpus.iter().filter(|_| placement.exclusive_cpus).flat_map(damocles_core::CpuSet::iter);
    placement.gpus.iter().cloned().map(Resource::Gpu).chain(own.map(Resource::Cpu)).collect()
}

#[async_trait]
impl Gate for ClaimGate {
    async fn enter(&self, slot: &SlotSpec, job: &Job, cx: &Context) -> Result<Box<dyn Pass>, PoolError> {
        let wanted = resources_of(slot);
        if wanted.is_empty() {
            return Ok(Box::new(()));
        }
        let used = Use { kind: job.kind.clone(), sector: job.sector };
        let failed = |error: ClaimError| {
            Error::new(PoolErrorKind::Start, "claim hardware")
                .with("slot", &slot.name)
                .with("claims", self.claims.dir().display())
                .because(error)
                .hint_with("the directory of claims has to be writable for every program that shares this machine")
        };
        let mut changes = self.claims.changes().map_err(failed)?;
        let (mut want, mut asked, mut told) = (None, None, String::new());
        loop {
            if let Some(shared) = self.held.lock().get(&wanted).and_then(Weak::upgrade) {
                return Ok(Box::new(shared));
            }
            let refused = match self.claims.try_claim(&wanted, &used, want.as_ref()) {
                Ok(claim) => {
                    let claim = Arc::new(claim);
                    self.held.lock().insert(wanted, Arc::downgrade(&claim));
                    return Ok(Box::new(claim));
                }
                Err(error) if error.passes() => error,
                Err(error) => return Err(failed(error)),
            };
            if want.is_none() {
                want = Some(self.claims.want(&wanted, &used).map_err(failed)?);
                continue;
            }
            let reason = self.describe(&refused);
            // How long it has been held runs on; who holds it is told once.
            let (who, _) = reason.rsplit_once(" for ").unwrap_or((&reason, ""));
            if told != who {
                who.clone_into(&mut told);
                let what = JobEvent::Queued { reason };
                cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
            }
            self.ask(&refused, job, &mut asked).await;
            changes.next().await.map_err(failed)?;
        }
    }

    fn held_elsewhere(&self, slot: &SlotSpec) -> Option<String> {
        let holder = |resource: &Resource| {
            let holder = self.claims.seen_holder(resource).filter(|holder| holder.pid != std::process::id())?;
            Some(format!("{resource} is held by {}", holder.describe(self.claims.now())))
        };
        resources_of(slot).iter().find_map(holder)
    }
}
