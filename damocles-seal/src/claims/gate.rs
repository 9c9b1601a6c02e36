//! Claims between a pool's slots and other programs on the machine.

use super::{Asker, Changes, Claim, ClaimError, Claims, LOOK_AGAIN, Resource, Urgency, Use, Want, may_yield};
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

    /// One try. None if this program has it, and somebody else goes before another of its tasks.
    fn once(&self, wanted: &[Resource], used: &Use, want: Option<&Want>) -> Result<Option<Arc<Claim>>, ClaimError> {
        let shared = self.held.lock().get(wanted).and_then(Weak::upgrade);
        if let Some(shared) = shared {
            let joins = !self.claims.others_first(wanted, used, want)?;
            return Ok(joins.then_some(shared));
        }
        let claim = Arc::new(self.claims.try_claim(wanted, used, want)?);
        self.held.lock().insert(wanted.to_vec(), Arc::downgrade(&claim));
        Ok(Some(claim))
    }

    /// Waits until it is worth another try.
    ///
    /// Without a watch, or without a place in the queue, a task of hours looks again every [`LOOK_AGAIN`]: the lock
    /// alone decides, and who has no place may be overtaken. A proof has no time for that, and gets the error.
    async fn wait(
        &self,
        wanted: &[Resource],
        used: &Use,
        job: &Job,
        cx: &Context,
        waiting: &mut Waiting,
    ) -> Result<(), ClaimError> {
        if waiting.changes.is_none() || waiting.want.is_none() {
            match waiting.begin(&self.claims, wanted, used) {
                // Watched and in the queue before the next try, so that nothing is missed after it.
                Ok(()) => return Ok(()),
                Err(error) => waiting.do_without(error, job)?,
            }
        }
        if let Some(refused) = &waiting.refused {
            let reason = self.describe(refused);
            // How long it has been held runs on; who holds it is told once.
            let (who, _) = reason.rsplit_once(" for ").unwrap_or((&reason, ""));
            if waiting.told != who {
                who.clone_into(&mut waiting.told);
                let what = JobEvent::Queued { reason };
                cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
            }
            self.ask(refused, job, &mut waiting.asked).await;
        }
        let told = match &mut waiting.changes {
            Some(changes) => tokio::time::timeout(LOOK_AGAIN, changes.next()).await,
            None => tokio::time::timeout(LOOK_AGAIN, std::future::pending()).await,
        };
        match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                waiting.changes = None;
                waiting.do_without(error, job)
            }
            Err(_) => {
                // A holder that could not yield then may now.
                waiting.asked = None;
                Ok(())
            }
        }
    }

    /// Asks whoever holds something to yield, if that is something to be asked for. Once for each time it is held.
    async fn ask(&self, refused: &ClaimError, job: &Job, asked: &mut Option<super::Holder>) {
        let (Some(asker), ClaimError::Held { resource, holder: Some(holder) }) = (&self.asker, refused) else { return };
        if self.claims.is_own(holder)
            || holder.socket.is_none()
            || !may_yield(&holder.kind, &job.kind)
            || asked.as_ref() == Some(&**holder)
        {
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

/// A task on its way to a claim.
#[derive(Debug, Default)]
struct Waiting {
    changes: Option<Changes>,
    want: Option<Want>,
    refused: Option<ClaimError>,
    /// Who was asked to yield.
    asked: Option<super::Holder>,
    /// What was told of the wait.
    told: String,
    /// Whether it was said that something of this cannot be had.
    warned: bool,
}

impl Waiting {
    /// Watches, and takes a place in the queue.
    fn begin(&mut self, claims: &Claims, wanted: &[Resource], used: &Use) -> Result<(), ClaimError> {
        if self.changes.is_none() {
            self.changes = Some(claims.changes()?);
        }
        if self.want.is_none() {
            self.want = Some(claims.want(wanted, used)?);
        }
        Ok(())
    }

    /// Waits on without what failed, unless it is for a proof.
    fn do_without(&mut self, error: ClaimError, job: &Job) -> Result<(), ClaimError> {
        if Urgency::of(&job.kind) == Urgency::Post {
            return Err(error);
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(kind = %job.kind, %error, "waits for a claim by looking again");
        }
        Ok(())
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
    async fn enter(
        &self,
        slot: &SlotSpec,
        job: &Job,
        cx: &Context,
        waits: &(dyn Fn() + Send + Sync),
    ) -> Result<Box<dyn Pass>, PoolError> {
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
        let mut waiting = Waiting::default();
        loop {
            let waited = match self.once(&wanted, &used, waiting.want.as_ref()) {
                Ok(Some(claim)) => return Ok(Box::new(claim)),
                Ok(None) => self.wait(&wanted, &used, job, cx, &mut waiting).await,
                Err(error) if error.passes() => {
                    waiting.refused = Some(error);
                    self.wait(&wanted, &used, job, cx, &mut waiting).await
                }
                Err(error) => Err(error),
            };
            match waited {
                Ok(()) => {}
                // Two programs on one card are better than a deadline that is missed for want of a file.
                Err(error) if Urgency::of(&job.kind) == Urgency::Post => {
                    tracing::warn!(slot = slot.name, %error, "proves without a claim");
                    return Ok(Box::new(()));
                }
                Err(error) => return Err(failed(error)),
            }
            // After the wait: what was given back before that was watched for is seen too.
            waits();
        }
    }

    fn held_elsewhere(&self, slot: &SlotSpec) -> Option<String> {
        let holder = |resource: &Resource| {
            let holder = self.claims.seen_holder(resource).filter(|holder| !self.claims.is_own(holder))?;
            Some(format!("{resource} is held by {}", holder.describe(self.claims.now())))
        };
        resources_of(slot).iter().find_map(holder)
    }
}
