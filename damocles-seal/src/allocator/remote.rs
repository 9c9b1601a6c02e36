//! An allocator that is somewhere else.

use crate::rpc::{CallError, Caller, Method, RpcClient, damocles, venus};
use async_trait::async_trait;
use damocles_core::{
    Error, Fence, SealProofType, SectorId, StoreId, Timestamp,
    allocator::{AllocError, AllocErrorKind, AllocateRequest, Outcome, SectorAllocator, SectorLease},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The allocator of a manager, over JSON-RPC.
///
/// An incumbent's has no leases: a sector is handed out with fence 0, nobody can take it from its worker, and a lost
/// reply loses it. Taking up, renewing and releasing such a sector changes nothing anywhere.
#[derive(Clone, Debug)]
pub struct RemoteAllocator {
    client: RpcClient,
    /// The names of take-ups that had no answer, by what they take up: a repeat is the same request, so that whichever
    /// copy arrives last does not fence the holder.
    unanswered: Arc<Mutex<BTreeMap<(StoreId, SectorId), String>>>,
}

impl RemoteAllocator {
    /// The allocator of the manager that this client calls.
    pub fn new(client: RpcClient) -> Self {
        Self { client, unanswered: Arc::default() }
    }

    async fn call<M: Method>(&self, caller: Caller, params: &M::Params) -> Result<M::Output, AllocError> {
        self.client.call::<M>(caller, params).await.map_err(|e| e.alloc(M::NAME))
    }

    async fn leases(&self, op: &'static str) -> Result<bool, AllocError> {
        self.client.leases().await.map_err(|e: CallError| e.alloc(op))
    }

    async fn of_incumbent(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        let spec = venus::AllocateSpec {
            allowed_miners: Some(want.miners.iter().map(|m| m.0).collect()),
            allowed_proof_types: Some(want.proof_types.iter().map(|p| p.number()).collect()),
        };
        let caller = Caller { fence: None, idempotency_key: Some(want.request.as_str().to_owned()) };
        let Some(sector) = self.call::<venus::AllocateSector>(caller, &(spec,)).await? else {
            return Ok(None);
        };
        incumbent_lease(&want.store, sector.id, sector.proof_type).map(Some)
    }
}

fn incumbent_lease(store: &StoreId, id: venus::WireSector, proof_type: i64) -> Result<SectorLease, AllocError> {
    let sector = SectorId::from(id);
    let proof_type = SealProofType::try_from(proof_type)
        .map_err(|e| Error::new(AllocErrorKind::Refused, "lease sector").with("sector", sector).because(e))?;
    Ok(SectorLease { sector, proof_type, store: store.clone(), fence: Fence(0), heard_until: Timestamp(i64::MAX) })
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl SectorAllocator for RemoteAllocator {
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        if !self.leases("allocate sector").await? {
            return self.of_incumbent(want).await;
        }
        let caller = Caller { fence: None, idempotency_key: Some(want.request.as_str().to_owned()) };
        self.call::<damocles::AllocateSector>(caller, &(want.clone(),)).await
    }

    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError> {
        if !self.leases("take sector up").await? {
            let found = self.call::<venus::FindSectorInAllStates>(Caller::default(), &(sector.into(),)).await?;
            return incumbent_lease(store, found.id, found.sector_type);
        }
        let what = (store.clone(), sector);
        let key = self
            .unanswered
            .lock()
            .entry(what.clone())
            .or_insert_with(|| format!("{:032x}", rand::random::<u128>()))
            .clone();
        let caller = Caller { fence: None, idempotency_key: Some(key) };
        let taken = self.call::<damocles::TakeUp>(caller, &(store.clone(), sector, millis(ttl))).await;
        if !matches!(&taken, Err(e) if e.kind() == AllocErrorKind::Unavailable) {
            self.unanswered.lock().remove(&what);
        }
        taken
    }

    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
        if !self.leases("list leases").await? {
            return Ok(Vec::new());
        }
        self.call::<damocles::HeldBy>(Caller::default(), &(store.clone(),)).await
    }

    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError> {
        const OP: &str = "renew lease";
        if !self.leases(OP).await? {
            return Ok(lease.clone());
        }
        let params = (vec![lease.clone()], millis(ttl));
        let mut renewals = self.call::<damocles::RenewLeases>(Caller::default(), &params).await?;
        match renewals.pop() {
            Some(damocles::Renewal::Renewed(renewed)) if renewed.sector == lease.sector => Ok(renewed),
            Some(damocles::Renewal::Failed { code, message }) => {
                Err(CallError::refused(code, message, self.client.endpoint()).alloc(OP).with("sector", lease.sector))
            }
            _ => Err(Error::new(AllocErrorKind::Unavailable, OP)
                .with("manager", self.client.endpoint())
                .with("sector", lease.sector)),
        }
    }

    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError> {
        if !self.leases("release lease").await? {
            return Ok(());
        }
        self.call::<damocles::ReleaseLease>(Caller::default(), &(lease.clone(), outcome)).await
    }
}
