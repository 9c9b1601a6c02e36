//! Parameters of the calls that bring sectors in, with fake proofs of what they state.

use crate::sim::{Sim, comm_r};
use damocles_core::{
    ActorId, AggregationType, CommR, SealProofType, SectorId, SectorNumber, SectorSize,
    testing::fake_proof,
    verify::{
        AggregateSealStatement, AggregatedSeal, NiSeal, NiSealStatement, Randomness, SealStatement, UpdateStatement,
    },
    zero_comm_d,
};
use fil_actor_miner_state::v18::{
    CompactCommD, PieceActivationManifest, PreCommitSectorBatchParams2, ProveCommitSectors3Params,
    ProveCommitSectorsNIParams, ProveReplicaUpdates3Params, SectorActivationManifest, SectorNIActivationInfo,
    SectorPreCommitInfo, SectorUpdateManifest, Sectors,
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::sector::{RegisteredAggregateProof, RegisteredSealProof, RegisteredUpdateProof};

/// Between a pre-commit and its seed.
const DELAY: i64 = 10;

impl Sim {
    pub(crate) fn pre_commit_params(&self, miner: u64, numbers: &[u64]) -> PreCommitSectorBatchParams2 {
        let longest = 30 * 2880 + DELAY;
        let of = |number: &u64| SectorPreCommitInfo {
            seal_proof: RegisteredSealProof::StackedDRG2KiBV1P1,
            sector_number: *number,
            sealed_cid: comm_r(miner, *number, 0).cid(),
            seal_rand_epoch: self.epoch() - 100,
            deal_ids: vec![],
            expiration: self.epoch() + longest + 2000 + i64::try_from(*number).unwrap(),
            unsealed_cid: CompactCommD(None),
        };
        PreCommitSectorBatchParams2 { sectors: numbers.iter().map(of).collect() }
    }

    /// The statement of a pre-committed sector's proof.
    pub(crate) fn seal_statement(&self, miner: u64, number: u64) -> Option<SealStatement> {
        let found = self.state(miner).get_precommitted_sector(&self.store(), number).ok()??;
        let seed_epoch = found.pre_commit_epoch + DELAY;
        if seed_epoch > self.epoch() {
            return None;
        }
        Some(SealStatement {
            sector: SectorId::new(ActorId(miner), SectorNumber(number)),
            proof_type: SealProofType::of(SectorSize::KiB2),
            comm_r: CommR::from_cid(&found.info.sealed_cid).unwrap(),
            comm_d: zero_comm_d(SectorSize::KiB2),
            ticket: Randomness(self.randomness("Tickets", 5, found.info.seal_rand_epoch, miner)),
            seed: Randomness(self.randomness("Beacon", 6, seed_epoch, miner)),
        })
    }

    /// The proof of sectors whose seed is there: one for all if `aggregate`.
    pub(crate) fn prove_params(&self, miner: u64, numbers: &[u64], aggregate: bool) -> ProveCommitSectors3Params {
        let statements: Vec<SealStatement> =
            numbers.iter().filter_map(|number| self.seal_statement(miner, *number)).collect();
        let activation =
            |s: &SealStatement| SectorActivationManifest { sector_number: s.sector.number.0, pieces: vec![] };
        let mut params = ProveCommitSectors3Params {
            sector_activations: statements.iter().map(activation).collect(),
            sector_proofs: vec![],
            aggregate_proof: RawBytes::default(),
            aggregate_proof_type: None,
            require_activation_success: true,
            require_notification_success: false,
        };
        if aggregate {
            let of = |s: &SealStatement| AggregatedSeal {
                number: s.sector.number,
                comm_r: s.comm_r,
                comm_d: s.comm_d,
                ticket: s.ticket,
                seed: s.seed,
            };
            let statement = AggregateSealStatement {
                miner: ActorId(miner),
                proof_type: SealProofType::of(SectorSize::KiB2),
                aggregation: AggregationType::SnarkPackV2,
                sectors: statements.iter().map(of).collect(),
            };
            params.aggregate_proof = RawBytes::new(fake_proof::aggregate_seals(&statement));
            params.aggregate_proof_type = Some(RegisteredAggregateProof::SnarkPackV2);
        } else {
            params.sector_proofs = statements.iter().map(|s| RawBytes::new(fake_proof::seal(s))).collect();
        }
        params
    }

    pub(crate) fn ni_params(
        &self,
        miner: u64,
        numbers: &[u64],
        expiration: i64,
        deadline: u64,
    ) -> ProveCommitSectorsNIParams {
        let ticket_epoch = self.epoch() - 50;
        let ticket = Randomness(self.randomness("Tickets", 5, ticket_epoch, miner));
        let seal = |number: &u64| NiSeal {
            number: SectorNumber(*number),
            comm_r: comm_r(miner, *number, 0),
            comm_d: zero_comm_d(SectorSize::KiB2),
            ticket,
        };
        let statement = NiSealStatement {
            miner: ActorId(miner),
            sector_size: SectorSize::KiB2,
            sectors: numbers.iter().map(seal).collect(),
        };
        let sector = |number: &u64| SectorNIActivationInfo {
            sealing_number: *number,
            sealer_id: miner,
            sealed_cid: comm_r(miner, *number, 0).cid(),
            sector_number: *number,
            seal_rand_epoch: ticket_epoch,
            expiration,
        };
        ProveCommitSectorsNIParams {
            sectors: numbers.iter().map(sector).collect(),
            aggregate_proof: RawBytes::new(fake_proof::ni_seals(&statement)),
            seal_proof_type: RegisteredSealProof::StackedDRG2KiBV1P2_Feat_NiPoRep,
            aggregate_proof_type: RegisteredAggregateProof::SnarkPackV2,
            proving_deadline: deadline,
            require_activation_success: true,
        }
    }

    /// Puts a piece into a sector that has none.
    pub(crate) fn update_params(&self, miner: u64, number: u64) -> ProveReplicaUpdates3Params {
        let store = self.store();
        let state = self.state(miner);
        let (deadline, partition) = state.find_sector(&store, number).unwrap();
        let sector = Sectors::load(&store, &state.sectors).unwrap().must_get(number).unwrap();
        let data = damocles_core::CommD([7; 32]);
        let statement = UpdateStatement {
            sector_size: SectorSize::KiB2,
            old_comm_r: CommR::from_cid(&sector.sealed_cid).unwrap(),
            new_comm_r: comm_r(miner, number, 1),
            new_comm_d: data,
        };
        let piece = PieceActivationManifest {
            cid: data.cid(),
            size: fvm_shared::piece::PaddedPieceSize(2048),
            verified_allocation_key: None,
            notify: vec![],
        };
        ProveReplicaUpdates3Params {
            sector_updates: vec![SectorUpdateManifest {
                sector: number,
                deadline,
                partition,
                new_sealed_cid: comm_r(miner, number, 1).cid(),
                pieces: vec![piece],
            }],
            sector_proofs: vec![RawBytes::new(fake_proof::replica_update(&statement))],
            aggregate_proof: RawBytes::default(),
            update_proofs_type: RegisteredUpdateProof::StackedDRG2KiBV1,
            aggregate_proof_type: None,
            require_activation_success: true,
            require_notification_success: false,
        }
    }
}
