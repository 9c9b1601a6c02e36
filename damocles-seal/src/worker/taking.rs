//! Which sector to work on.

use super::{
    ThreadState,
    exit::{Exit, of_alloc},
    run::Run,
};
use crate::{
    journal::{JournalSector, Phase},
    service::Hello,
};
use damocles_core::{
    Error, Fence, Recovery, RequestId, SealProofType, SectorId,
    allocator::{AllocateRequest, Outcome, SectorLease},
    pipeline::{SealError, SealErrorKind},
};
use std::sync::Arc;

/// What to do next.
#[derive(Debug)]
pub(super) enum Taken {
    /// Step this sector, which is open.
    Open {
        /// Its lease.
        lease: SectorLease,
    },
    /// The work on this one is over; the manager may not know.
    Ending {
        /// Its lease, as recorded.
        lease: SectorLease,
        /// How it ended.
        outcome: Outcome,
        /// Why, if it was abandoned.
        reason: Option<String>,
    },
}

impl Run<'_> {
    /// Takes up the sector that the store holds, else has a new one leased.
    pub(super) async fn take(&self) -> Result<Taken, Exit> {
        loop {
            self.show(ThreadState::Idle);
            self.gate().await?;
            let journal = &self.thread.parts.journal;
            let active = self.patiently("read journal", || Box::pin(async { journal.active().await })).await?;
            let taken = match active {
                Err(error) => Err(error),
                Ok(active) => match active.into_iter().next() {
                    Some(JournalSector { lease, phase: Phase::Ending { outcome, reason } }) => {
                        return Ok(Taken::Ending { lease, outcome, reason });
                    }
                    Some(held) => match self.take_abort() {
                        Some(reason) => {
                            self.finish(&held.lease, Outcome::Abandoned, Some(&reason)).await?;
                            continue;
                        }
                        None => self.take_up(held).await?,
                    },
                    None => {
                        // It was about a sector that is not there any more.
                        drop(self.take_abort());
                        self.allocate().await?
                    }
                },
            };
            match taken {
                Ok(Some(lease)) => return Ok(Taken::Open { lease }),
                Ok(None) => {}
                Err(error) => self.park(None, &error).await?,
            }
        }
    }

    async fn take_up(&self, held: JournalSector) -> Result<Result<Option<SectorLease>, SealError>, Exit> {
        let sector = held.lease.sector;
        self.show_sector(Some(sector));
        if let Err(error) = self.greet(&[held.lease.proof_type]).await? {
            return Ok(Err(error));
        }
        let lease = match self.lease_again(sector).await? {
            Ok(lease) => lease,
            // The manager gave it up behind our back.
            Err(error) if error.recovery() == Recovery::Abandon => {
                self.finish(&held.lease, Outcome::Abandoned, Some(&error.chain())).await?;
                return Ok(Ok(None));
            }
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = self.open(&lease).await? {
            return Ok(Err(error));
        }
        if let Phase::Parked { stage, error, hint, may_pass } = held.phase {
            // A restart is not an operator's word.
            self.show_stage(stage);
            self.stay_parked(&lease, super::ThreadError { error, hint }, may_pass).await?;
            return Ok(Ok(None));
        }
        Ok(Ok(Some(lease)))
    }

    /// Takes up a sector that this store holds, under a newer fence.
    pub(super) async fn lease_again(&self, sector: SectorId) -> Result<Result<SectorLease, SealError>, Exit> {
        let parts = &self.thread.parts;
        self.patiently("take sector up", || {
            Box::pin(async {
                let taken = parts.allocator.take_up(parts.store.id(), sector, self.config().ttl);
                self.limited("take sector up", taken)
                    .await?
                    .map_err(|e| of_alloc("take sector up", e).with("sector", sector))
            })
        })
        .await
    }

    /// Refuses to go on if the manager knows of a lease of this store that the journal has never heard of: it was lost,
    /// and another sector would bury the first one. An incumbent's leases, which have no fence, are no evidence.
    async fn know_all(&self, but: Option<SectorId>) -> Result<Result<(), SealError>, Exit> {
        let (op, parts) = ("compare leases with the journal", &self.thread.parts);
        self.patiently(op, || {
            Box::pin(async {
                let held = self.limited(op, parts.allocator.held_by(parts.store.id())).await?;
                let held = held.map_err(|e| of_alloc(op, e))?.into_iter().filter(|l| l.fence != Fence(0));
                for sector in held.map(|l| l.sector).filter(|s| Some(*s) != but) {
                    if parts.journal.history(sector).await?.is_empty() {
                        return Err(Error::new(SealErrorKind::UnknownSector, op)
                            .with("leased", sector)
                            .with("journal", parts.store.journal_path().display())
                            .hint_with(
                                "the manager holds a lease of this store that the journal does not know: bring the \
                                 journal back, or end the lease with `damocles-manager sectors release`, which gives a \
                                 sector without a stored replica up, then resume",
                            ));
                    }
                    self.note(format!("{sector} is leased to this store and ended by its journal"));
                }
                Ok(())
            })
        })
        .await
    }

    async fn allocate(&self) -> Result<Result<Option<SectorLease>, SealError>, Exit> {
        let (parts, config) = (&self.thread.parts, self.config());
        self.show_sector(None);
        let all: Vec<SealProofType> = parts.keys.keys().copied().collect();
        let wanted = if config.proof_types.is_empty() { &all } else { &config.proof_types };
        if let Err(error) = self.greet(wanted).await? {
            return Ok(Err(error));
        }
        let journal = &parts.journal;
        let pending = self.patiently("read request", || Box::pin(async { journal.pending_request().await })).await?;
        match pending {
            // Before a number is burnt.
            Ok(None) => {
                if let Err(error) = self.find_room().await? {
                    return Ok(Err(error));
                }
                if let Err(error) = self.know_all(None).await? {
                    return Ok(Err(error));
                }
            }
            Ok(Some(_)) => {}
            Err(error) => return Ok(Err(error)),
        }
        let (request, fresh) = match self.request().await? {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let want = AllocateRequest {
            request,
            store: parts.store.id().clone(),
            worker: config.worker.clone(),
            miners: config.miners.clone(),
            proof_types: config.proof_types.clone(),
            ttl: config.ttl,
        };
        let leased = self
            .patiently("lease a sector", || {
                Box::pin(async {
                    // Other settings came while the manager was away: what they allow is asked for instead.
                    if !Arc::ptr_eq(&config, &self.config()) {
                        return Ok(None);
                    }
                    let leased = self.limited("lease a sector", parts.allocator.allocate(&want)).await?;
                    leased.map(Some).map_err(|e| of_alloc("lease a sector", e).with("request", &want.request))
                })
            })
            .await?;
        match leased {
            Ok(None) => Ok(Ok(None)),
            Ok(Some(Some(lease))) => {
                // A request of other settings may have been answered with it.
                if !wanted.contains(&lease.proof_type)
                    && let Err(error) = self.greet(&[lease.proof_type]).await?
                {
                    return Ok(Err(error));
                }
                // A request of an earlier run may have been answered with this lease, but with no other.
                if !fresh && let Err(error) = self.know_all(Some(lease.sector)).await? {
                    return Ok(Err(error));
                }
                self.show_sector(Some(lease.sector));
                Ok(self.open(&lease).await?.map(|()| Some(lease)))
            }
            Ok(Some(None)) => {
                self.show(ThreadState::Idle);
                self.wait_under(&config, config.idle_interval, std::future::pending()).await?;
                Ok(Ok(None))
            }
            Err(error) if !fresh && error.kind() == SealErrorKind::Refused => {
                // Its lease was ended by an operator before we heard of it: there is nothing left to ask for.
                self.note(format!("request {} is void: {}", want.request, error.chain()));
                let forgotten = self
                    .patiently("forget request", || Box::pin(async { parts.journal.set_pending_request(None).await }))
                    .await?;
                Ok(forgotten.map(|()| None))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Waits until the store's file system is not nearly full.
    async fn find_room(&self) -> Result<Result<(), SealError>, Exit> {
        let (op, store) = ("begin a sector", &self.thread.parts.store);
        self.patiently(op, || {
            let store = Arc::clone(store);
            Box::pin(async move {
                let asked = tokio::task::spawn_blocking(move || store.may_begin()).await;
                let asked = asked.map_err(|e| Error::new(SealErrorKind::Stage, op).because(e))?;
                asked.map_err(|e| crate::stage::of_store(op, e))
            })
        })
        .await
    }

    /// The recorded request, or a new one that is recorded before anybody hears of it.
    async fn request(&self) -> Result<Result<(RequestId, bool), SealError>, Exit> {
        let journal = &self.thread.parts.journal;
        self.patiently("record request", || {
            Box::pin(async {
                if let Some(request) = journal.pending_request().await? {
                    return Ok((request, false));
                }
                let bytes: [u8; 16] = rand::random();
                let request = RequestId::new(hex::encode(bytes));
                journal.set_pending_request(Some(&request)).await?;
                Ok((request, true))
            })
        })
        .await
    }

    async fn open(&self, lease: &SectorLease) -> Result<Result<(), SealError>, Exit> {
        let pipeline = &self.thread.parts.pipeline;
        self.patiently("open sector", || Box::pin(async { pipeline.open(lease.clone()).await.map(drop) })).await
    }

    /// Makes sure that the manager checks proofs of these types with the keys that ours are made for.
    async fn greet(&self, proof_types: &[SealProofType]) -> Result<Result<(), SealError>, Exit> {
        let parts = &self.thread.parts;
        let hello = self
            .patiently("greet manager", || {
                Box::pin(async {
                    let hello = self.limited("greet manager", parts.service.hello()).await?;
                    hello.map_err(|e| crate::stage::of_service("greet manager", e))
                })
            })
            .await?;
        Ok(hello.and_then(|Hello { keys, network, .. }| {
            let both = proof_types.iter().filter_map(|p| Some((p, parts.keys.get(p)?, keys.get(p)?)));
            match both.into_iter().find(|(_, ours, theirs)| ours != theirs) {
                Some((proof_type, ours, theirs)) => Err(Error::new(SealErrorKind::Refused, "compare verifying keys")
                    .with("network", network.as_deref().unwrap_or("unknown"))
                    .with("proof type", proof_type)
                    .with("porep here", &ours.porep)
                    .with("porep at the manager", &theirs.porep)
                    .with("window post here", &ours.window_post)
                    .with("window post at the manager", &theirs.window_post)
                    .hint_with("give both sides the same proof parameters, then resume the thread")),
                None => Ok(()),
            }
        }))
    }

    async fn stay_parked(&self, lease: &SectorLease, error: super::ThreadError, may_pass: bool) -> Result<(), Exit> {
        let _keeper = self.keeper(lease, self.cx.child());
        self.show_error(Some(error));
        self.await_operator(may_pass).await?;
        self.resumed(lease).await
    }
}
