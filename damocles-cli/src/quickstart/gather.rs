//! Reading the report from the chain, over RPC: our own records have no say in it.

use super::report::{Landed, PostReport, SectorKind, SectorReport};
use anyhow::Context as _;
use damocles_chain::{decode_call, rpc::RpcClient};
use damocles_core::{
    ActorId, Address, CommD, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, SectorId, SectorNumber, SectorSet,
    chain::{Call, ChainClient, DeadlineInfo, OnChain, RandomnessKind, SubmitWindowedPoSt, TipsetRef},
    verify::{PoStStatement, ProofVerifier, ProvenSector},
    zero_comm_d,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One message to the miner that is on chain, as the devnet lists them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    cid: CidText,
    epoch: i64,
    method: u64,
    exit_code: i64,
}

#[derive(Debug, Deserialize)]
struct CidText {
    #[serde(rename = "/")]
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    params: Option<String>,
}

/// A message to the miner that is on chain.
#[derive(Debug)]
struct Sent {
    landed: Landed,
    call: Call,
}

/// Reads what the chain says about a miner's sectors.
#[derive(Debug)]
pub struct Gather<'a> {
    /// The node.
    pub rpc: &'a RpcClient,
    /// The same node behind the seam.
    pub chain: &'a dyn ChainClient,
    /// Checks the proofs that were sent.
    pub verifier: &'a dyn ProofVerifier,
    /// The miner.
    pub miner: ActorId,
}

/// Where the chain put a sector.
type Places = BTreeMap<SectorNumber, (DeadlineIndex, PartitionIndex)>;

impl Gather<'_> {
    /// Every sector that was ever pre-committed, by number.
    ///
    /// # Errors
    ///
    /// The node does not answer, or not in a way that makes sense.
    pub async fn sectors(&self) -> anyhow::Result<Vec<SectorReport>> {
        let head = self.chain.head().await?;
        let sent = self.sent().await?;
        let places = self.places(&head).await?;
        let mut reports = Vec::new();
        for message in &sent {
            let Call::PreCommit(batch) = &message.call else { continue };
            if message.landed.exit_code != 0 {
                continue;
            }
            for sector in &batch.sectors {
                let zero = zero_comm_d(sector.proof_type.sector_size());
                let comm_d = sector.comm_d.unwrap_or(zero);
                let place = places.get(&sector.number).copied();
                let on_chain = self.chain.sector(&head, SectorId::new(self.miner, sector.number)).await?;
                let (proven, pieces) = proof_of(&sent, sector.number);
                reports.push(SectorReport {
                    id: SectorId::new(self.miner, sector.number).to_string(),
                    kind: kind_of(comm_d, zero),
                    pieces,
                    comm_d,
                    comm_r: sector.comm_r,
                    pre_commit: message.landed.clone(),
                    prove_commit: proven,
                    activation: match on_chain {
                        OnChain::Active(info) => Some(info.activation),
                        _ => None,
                    },
                    deadline: place.map(|p| p.0),
                    partition: place.map(|p| p.1),
                    posts: Vec::new(),
                });
            }
        }
        reports.sort_by_key(|r| r.id.parse::<SectorId>().ok());
        self.add_posts(&head, &sent, &mut reports).await?;
        Ok(reports)
    }

    /// All messages to the miner, oldest first.
    async fn sent(&self) -> anyhow::Result<Vec<Sent>> {
        let address = Address::from_actor(self.miner);
        let listed: Vec<Listed> = self.ask("Devnet.Messages", json!([address])).await?;
        let mut sent = Vec::new();
        for entry in listed {
            let message: Message = self.ask("Filecoin.ChainGetMessage", json!([{ "/": entry.cid.text }])).await?;
            let Some(call) = decode_call(self.miner, entry.method, message.params.as_deref().unwrap_or_default())
            else {
                continue;
            };
            let landed = Landed { message: entry.cid.text, epoch: Epoch(entry.epoch), exit_code: entry.exit_code };
            sent.push(Sent { landed, call });
        }
        Ok(sent)
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> anyhow::Result<T> {
        let answer = self.rpc.raw(method, params).await?;
        serde_json::from_value(answer).with_context(|| format!("read the answer to {method}"))
    }

    async fn places(&self, head: &TipsetRef) -> anyhow::Result<Places> {
        let mut places = Places::new();
        for deadline in (0..48).map(DeadlineIndex) {
            let state = self.chain.partitions(head, self.miner, deadline).await?;
            for (partition, held) in (0..).map(PartitionIndex).zip(&state.partitions) {
                places.extend(held.all.iter().map(|number| (number, (deadline, partition))));
            }
        }
        Ok(places)
    }

    async fn add_posts(&self, head: &TipsetRef, sent: &[Sent], reports: &mut [SectorReport]) -> anyhow::Result<()> {
        for message in sent {
            let Call::SubmitWindowedPoSt(post) = &message.call else { continue };
            let (covered, verified) = self.check(head, message.landed.epoch, post).await?;
            for report in reports.iter_mut() {
                let id: SectorId = report.id.parse().context("our own text form")?;
                if covered.contains(id.number) {
                    report.posts.push(PostReport {
                        message: message.landed.message.clone(),
                        epoch: message.landed.epoch,
                        exit_code: message.landed.exit_code,
                        verified,
                    });
                }
            }
        }
        Ok(())
    }

    /// The sectors that a proof covers, and whether it proves them.
    async fn check(
        &self,
        head: &TipsetRef,
        landed: Epoch,
        post: &SubmitWindowedPoSt,
    ) -> anyhow::Result<(SectorSet, bool)> {
        let now = self.chain.deadline(head, self.miner).await?;
        let open = opened(&now, post.deadline, landed);
        let state = self.chain.partitions(head, self.miner, post.deadline).await?;
        let (mut named, mut faulty) = (SectorSet::new(), SectorSet::new());
        for partition in &post.partitions {
            let index = usize::try_from(partition.index.0)?;
            let Some(held) = state.partitions.get(index) else { continue };
            named = named.union(&held.all.minus(&partition.skipped));
            faulty = faulty.union(&held.faulty);
        }
        let infos = self.chain.sectors(head, self.miner, &named).await?;
        let randomness = self
            .chain
            .randomness(head, RandomnessKind::WindowPoStChallenge, open - now.challenge_lookback, self.miner)
            .await?;
        let mut statement = PoStStatement {
            miner: self.miner,
            proof_type: post.proof_type,
            randomness,
            // A sector that came into the partition later is not in this proof: a deadline is closed to new sectors
            // well before it opens.
            sectors: infos
                .iter()
                .filter(|i| i.activation < open)
                .map(|i| ProvenSector { number: i.number, comm_r: i.comm_r })
                .collect(),
        };
        let mut verified = self.proves(&statement, post)?;
        if !verified && !faulty.is_empty() {
            // A sector that was faulty then, and is still, is in no proof without being named.
            statement.sectors.retain(|s| !faulty.contains(s.number));
            verified = self.proves(&statement, post)?;
        }
        Ok((statement.sectors.iter().map(|s| s.number).collect(), verified))
    }

    fn proves(&self, statement: &PoStStatement, post: &SubmitWindowedPoSt) -> anyhow::Result<bool> {
        Ok(!statement.sectors.is_empty() && self.verifier.verify_window_post(statement, &post.proof)?)
    }
}

/// When a deadline opened for the window in which `at` lies, given the deadline that is current now.
fn opened(now: &DeadlineInfo, deadline: DeadlineIndex, at: Epoch) -> Epoch {
    let offset = i64::try_from(deadline.0).unwrap_or(0) * now.challenge_window;
    let first = now.period_start + offset;
    at - (at - first).rem_euclid(now.proving_period)
}

fn kind_of(comm_d: CommD, zero: CommD) -> SectorKind {
    if comm_d == zero { SectorKind::Cc } else { SectorKind::Data }
}

/// The prove-commit of a sector and its pieces: the one that the actor accepted, else the last one.
fn proof_of(sent: &[Sent], number: SectorNumber) -> (Option<Landed>, Vec<PieceInfo>) {
    let proofs = sent.iter().filter_map(|message| match &message.call {
        Call::ProveCommit(batch) => batch.sectors.iter().find(|s| s.number == number).map(|s| (message, s)),
        _ => None,
    });
    let best = proofs.max_by_key(|(message, _)| (message.landed.exit_code == 0, message.landed.epoch));
    match best {
        Some((message, sector)) => (Some(message.landed.clone()), sector.pieces.iter().map(|p| p.piece).collect()),
        None => (None, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_found_from_any_later_deadline() {
        let now = DeadlineInfo {
            current: Epoch(5000),
            period_start: Epoch(2900),
            index: DeadlineIndex(35),
            open: Epoch(5000),
            close: Epoch(5060),
            challenge: Epoch(4980),
            fault_cutoff: Epoch(4930),
            deadlines: 48,
            proving_period: 2880,
            challenge_window: 60,
            challenge_lookback: 20,
            fault_declaration_cutoff: 70,
        };
        // Deadline 3 of this period opened at 2900 + 180, and in the period before 2,880 epochs earlier.
        assert_eq!(opened(&now, DeadlineIndex(3), Epoch(3100)), Epoch(3080));
        assert_eq!(opened(&now, DeadlineIndex(3), Epoch(3080)), Epoch(3080));
        assert_eq!(opened(&now, DeadlineIndex(3), Epoch(259)), Epoch(200));
        assert_eq!(opened(&now, DeadlineIndex(47), Epoch(2899)), Epoch(2840));
    }
}
