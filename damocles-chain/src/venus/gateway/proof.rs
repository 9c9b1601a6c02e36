//! Winning proofs for those who make blocks.

use super::link::{Channel, Work};
use crate::lotus_json::{PoStProof, form};
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    ActorId, Address, BoxError, CancellationToken, CommR, Context, Epoch, SealProofType, SectorNumber, post::PoStError,
    verify::Randomness,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{fmt, sync::Arc, time::Duration};

/// The most sectors that a winning proof is asked over: the protocol draws one.
const MAX_SECTORS: usize = 64;

/// Makes winning proofs.
///
/// # Contract
///
/// - `prove` proves every sector that it is asked for or fails, and winds down when `cx` is cancelled: its time is over,
///   or whoever asked is gone.
#[async_trait]
pub trait WinningProver: fmt::Debug + Send + Sync + 'static {
    /// Makes the proofs.
    async fn prove(&self, request: &WinningRequest, cx: &Context) -> Result<Vec<PoStProof>, PoStError>;
}

/// What is to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinningRequest {
    /// The miner.
    pub miner: ActorId,
    /// The sectors that were drawn.
    pub sectors: Vec<WinningSector>,
    /// The challenge, as it was drawn.
    pub randomness: Randomness,
    /// The epoch of the block.
    pub height: Epoch,
    /// The network version at it.
    pub network_version: u32,
}

/// A sector that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinningSector {
    /// Its number.
    pub number: SectorNumber,
    /// How it was sealed.
    pub seal_proof: SealProofType,
    /// Its replica.
    pub comm_r: CommR,
    /// The replica before its first update, if it was updated.
    pub sector_key: Option<CommR>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ComputeProof {
    sector_infos: Vec<SectorForm>,
    #[serde(with = "form")]
    rand: Vec<u8>,
    #[serde(default)]
    height: i64,
    #[serde(default, rename = "NWVersion")]
    nw_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SectorForm {
    seal_proof: i64,
    sector_number: u64,
    #[serde(default, with = "form")]
    sector_key: Option<Cid>,
    #[serde(rename = "SealedCID", with = "form")]
    sealed_cid: Cid,
}

fn sector_of(form: &SectorForm) -> Result<WinningSector, BoxError> {
    Ok(WinningSector {
        number: SectorNumber(form.sector_number),
        seal_proof: SealProofType::try_from(form.seal_proof)?,
        comm_r: CommR::from_cid(&form.sealed_cid)?,
        sector_key: form.sector_key.as_ref().map(CommR::from_cid).transpose()?,
    })
}

fn request_of(miner: ActorId, payload: &[u8]) -> Result<WinningRequest, BoxError> {
    let asked: ComputeProof = serde_json::from_slice(payload)?;
    if asked.sector_infos.is_empty() || asked.sector_infos.len() > MAX_SECTORS {
        return Err(format!("a winning proof is over 1 to {MAX_SECTORS} sectors").into());
    }
    Ok(WinningRequest {
        miner,
        sectors: asked.sector_infos.iter().map(sector_of).collect::<Result<_, _>>()?,
        randomness: Randomness(asked.rand.try_into().map_err(|_| "randomness has 32 bytes")?),
        height: Epoch(asked.height),
        network_version: asked.nw_version,
    })
}

#[derive(Debug)]
pub(super) struct ProofWork {
    pub(super) miner: ActorId,
    pub(super) prover: Arc<dyn WinningProver>,
    pub(super) prove_within: Duration,
}

#[async_trait]
impl Work for ProofWork {
    const LISTEN: &'static str = "ListenProofEvent";
    const RESPOND: &'static str = "ResponseProofEvent";

    fn policy(&self) -> Value {
        json!({"MinerAddress": Address::from_actor(self.miner)})
    }

    fn connected(&self, _: Option<Channel>) {}

    async fn answer(&self, method: &str, payload: &[u8], cancel: &CancellationToken) -> Result<Value, String> {
        if method != "ComputeProof" {
            return Err(format!("unexpected proof event type {method}"));
        }
        let request = request_of(self.miner, payload).map_err(|e| format!("read request for a proof: {e}"))?;
        let cx = Context { cancel: cancel.child_token(), ..Context::detached() };
        // Whatever ends this, the prover is to stop.
        let _stops = cx.cancel.clone().drop_guard();
        let proving = tokio::time::timeout(self.prove_within, self.prover.prove(&request, &cx));
        match proving.await {
            Ok(Ok(proofs)) if proofs.is_empty() => Err("the prover made no proof".to_owned()),
            Ok(Ok(proofs)) => Ok(json!(proofs)),
            Ok(Err(e)) => Err(e.chain()),
            Err(_) => Err(format!("the proof was not made within {} s", self.prove_within.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Value {
        let cid = |n| json!({"/": CommR([n; 32]).cid().to_string()});
        json!({
            "SectorInfos": [
                {"SealProof": 5, "SectorNumber": 7, "SectorKey": null, "SealedCID": cid(1)},
                {"SealProof": 5, "SectorNumber": 8, "SectorKey": cid(2), "SealedCID": cid(3)}
            ],
            "Rand": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "Height": 100, "NWVersion": 28
        })
    }

    #[test]
    fn requests_are_read() {
        let request = request_of(ActorId(1000), asked().to_string().as_bytes()).unwrap();
        assert_eq!(request.randomness, Randomness([7; 32]));
        assert_eq!((request.height, request.network_version, request.miner), (Epoch(100), 28, ActorId(1000)));
        assert_eq!(request.sectors[1].sector_key, Some(CommR([2; 32])));
        assert_eq!(request.sectors[0].number, SectorNumber(7));
    }

    #[test]
    fn rubbish_is_refused() {
        for (field, bad) in [
            ("SectorInfos", json!([])),
            ("SectorInfos", json!(null)),
            ("SectorInfos", Value::Array(vec![asked()["SectorInfos"][0].clone(); MAX_SECTORS + 1])),
            (
                "SectorInfos",
                json!([{"SealProof": 99, "SectorNumber": 7, "SealedCID": {"/": CommR([1; 32]).cid().to_string()}}]),
            ),
            ("Rand", json!("AAAA")),
            ("Rand", json!(null)),
            ("Height", json!("x")),
            ("NWVersion", json!(-1)),
        ] {
            let mut request = asked();
            request[field] = bad.clone();
            assert!(request_of(ActorId(1), request.to_string().as_bytes()).is_err(), "{field}: {bad}");
        }
        assert!(request_of(ActorId(1), b"<html>").is_err());
    }
}
