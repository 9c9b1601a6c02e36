//! How the recorded proofs of [`crate::statements`] were made: in seconds, because the trapdoors are published.
//!
//! A Groth16 prover spends its minutes on sums of points. Who knows the trapdoor needs none: he synthesises the circuit
//! with the same witness, sees that every constraint holds, and gets a proof that is distributed as the prover's. The
//! statements are those of the devnet in `damocles-tests`: of its first miner, with the ticket and the seed of the sector
//! that is recorded there.

use std::fs;
use std::path::{Path, PathBuf};

use bellperson::groth16::{Proof, VerifyingKey};
use bellperson::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use blstrs::{Bls12, G1Projective, G2Projective, Scalar};
use damocles_core::verify::{
    AggregateSealStatement, AggregatedSeal, NI_SEED, NiSeal, NiSealStatement, ProofVerifier, Randomness,
    UpdateStatement,
};
use damocles_core::{
    ActorId, AggregationType, CommD, CommR, Epoch, SealProofType, SectorId, SectorNumber, SectorSize, zero_comm_d,
};
use damocles_seal::params::{CircuitId, CircuitKind, Trapdoor};
use damocles_seal::verifier::Groth16Verifier;
use ff::Field;
use filecoin_hashers::{Domain as _, Hasher};
use filecoin_proofs::constants::{DefaultPieceDomain, DefaultPieceHasher, SectorShapeBase};
use filecoin_proofs::parameters::public_params;
use filecoin_proofs::types::{PoRepConfig, SealPreCommitOutput, SectorUpdateConfig};
use filecoin_proofs::{encode_into, generate_partition_proofs, seal_commit_phase1};
use filecoin_proofs_api::seal::{
    SealCommitPhase2Output, add_piece, aggregate_seal_commit_proofs, seal_pre_commit_phase1, seal_pre_commit_phase2,
};
use filecoin_proofs_api::{
    PieceInfo, RegisteredAggregationProof, RegisteredSealProof, RegisteredUpdateProof, SectorId as LibrarySector,
    UnpaddedBytesAmount,
};
use group::{Curve, Group};
use rand::rngs::OsRng;
use serde::Deserialize;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_core::parameter_cache::parameter_cache_verifying_key_path;
use storage_proofs_porep::stacked::{PublicInputs, StackedCircuit, StackedCompound, StackedDrg, Tau};
use storage_proofs_update::circuit::EmptySectorUpdateCircuit;
use storage_proofs_update::{EmptySectorUpdate, EmptySectorUpdateCompound, PublicParams};
use tempfile::TempDir;

use crate::sector::{SECTOR_SIZE, prover_id};
use crate::statements::{Recorded, ensure_key, write};

type Tree = SectorShapeBase;
type TreeDomain = <<Tree as MerkleTreeTrait>::Hasher as Hasher>::Domain;

const SIZE: SectorSize = SectorSize::KiB2;
const UNPADDED: UnpaddedBytesAmount = UnpaddedBytesAmount(SIZE.unpadded_bytes());
const INTERACTIVE: RegisteredSealProof = RegisteredSealProof::StackedDrg2KiBV1_1;
const NON_INTERACTIVE: RegisteredSealProof = RegisteredSealProof::StackedDrg2KiBV1_2_Feat_NonInteractivePoRep;
const UPDATE: RegisteredUpdateProof = RegisteredUpdateProof::StackedDrg2KiBV1;
/// What the actor wants in one aggregate at least.
const AGGREGATED: u64 = 4;

/// A circuit with its witness: every constraint is checked as it comes.
#[derive(Default)]
struct Witness {
    inputs: Vec<Scalar>,
    aux: Vec<Scalar>,
    constraints: usize,
}

impl Witness {
    /// The public inputs of a circuit whose constraints all hold, the leading one included.
    fn inputs_of<C: Circuit<Scalar>>(circuit: C) -> Vec<Scalar> {
        let mut witness = Self::default();
        witness.alloc_input(|| "", || Ok(Scalar::ONE)).unwrap();
        circuit.synthesize(&mut witness).unwrap();
        eprintln!("{} constraints hold", witness.constraints);
        witness.inputs
    }

    fn value(&self, combination: &LinearCombination<Scalar>) -> Scalar {
        let of = |(variable, coefficient): (Variable, &Scalar)| match variable.0 {
            Index::Input(index) => self.inputs[index] * coefficient,
            Index::Aux(index) => self.aux[index] * coefficient,
        };
        combination.iter().map(of).sum()
    }
}

impl ConstraintSystem<Scalar> for Witness {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux.push(value()?);
        Ok(Variable(Index::Aux(self.aux.len() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs.push(value()?);
        Ok(Variable(Index::Input(self.inputs.len() - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, annotation: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        let [a, b, c] = [a(LinearCombination::zero()), b(LinearCombination::zero()), c(LinearCombination::zero())]
            .map(|combination| self.value(&combination));
        assert_eq!(a * b, c, "constraint {}: {}", self.constraints, annotation().into());
        self.constraints += 1;
    }

    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }

    fn pop_namespace(&mut self) {}

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}

/// Proves with the trapdoor: any A and B have the C that satisfies the verifier's equation, and the prover's own are as
/// random as these.
struct Prover {
    trapdoor: Trapdoor,
    key: VerifyingKey<Bls12>,
    digest: String,
}

impl Prover {
    fn new(kind: CircuitKind) -> Self {
        let (digest, ours) = ensure_key(kind);
        assert!(ours.is_ok(), "only our parameters have a published trapdoor");
        let identifier = CircuitId::new(kind, SECTOR_SIZE).cache_identifier().unwrap();
        let key = fs::read(parameter_cache_verifying_key_path(&identifier)).unwrap();
        let key = VerifyingKey::read(key.as_slice()).unwrap();
        Self { trapdoor: Trapdoor::published(&identifier), key, digest }
    }

    fn prove<C: Circuit<Scalar>>(&self, circuit: C) -> Vec<u8> {
        let inputs = Witness::inputs_of(circuit);
        assert_eq!(inputs.len(), self.key.ic.len());
        let Trapdoor { alpha, beta, gamma, delta, .. } = &self.trapdoor;
        let (a, b) = (Scalar::random(OsRng), Scalar::random(OsRng));
        let public: G1Projective = self.key.ic.iter().zip(&inputs).map(|(point, input)| point * input).sum();
        let c = (G1Projective::generator() * (a * b - alpha * beta) - public * gamma) * delta.invert().unwrap();
        let proof = Proof::<Bls12> {
            a: (G1Projective::generator() * a).to_affine(),
            b: (G2Projective::generator() * b).to_affine(),
            c: c.to_affine(),
        };
        let mut bytes = Vec::new();
        proof.write(&mut bytes).unwrap();
        bytes
    }
}

/// The sector that `damocles-tests` recorded: its miner, ticket and seed are those of every new devnet.
#[derive(Deserialize)]
struct OfDevnet {
    sector: SectorId,
    ticket: Drawn,
    comm_r: CommR,
    seed: Drawn,
}

#[derive(Deserialize)]
struct Drawn {
    #[serde(rename = "epoch")]
    _epoch: Epoch,
    randomness: Randomness,
}

fn of_devnet() -> OfDevnet {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recorded/sector_2k.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A sector of zeros.
struct Sealed {
    id: SectorId,
    ticket: Randomness,
    dir: TempDir,
    commitments: SealPreCommitOutput,
    config: PoRepConfig,
}

fn zeros() -> PieceInfo {
    PieceInfo::new(zero_comm_d(SIZE).0, UNPADDED).unwrap()
}

impl Sealed {
    fn new(kind: RegisteredSealProof, miner: ActorId, number: u64, ticket: Randomness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (staged, sealed, cache) = (at("staged"), at("sealed"), at("cache"));
        fs::write(&staged, vec![0; usize::try_from(SECTOR_SIZE).unwrap()]).unwrap();
        fs::write(&sealed, []).unwrap();
        fs::create_dir(&cache).unwrap();
        let (prover, sector) = (prover_id(miner.0), LibrarySector::from(number));
        let layers =
            seal_pre_commit_phase1(kind, &cache, &staged, &sealed, prover, sector, ticket.0, &[zeros()]).unwrap();
        let output = seal_pre_commit_phase2(layers, &cache, &sealed).unwrap();
        let commitments = SealPreCommitOutput { comm_r: output.comm_r, comm_d: output.comm_d };
        Self { id: SectorId::new(miner, SectorNumber(number)), ticket, dir, commitments, config: kind.as_v1_config() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn comm_r(&self) -> CommR {
        CommR(self.commitments.comm_r)
    }

    fn comm_d(&self) -> CommD {
        CommD(self.commitments.comm_d)
    }

    /// One proof per partition, one after the other.
    fn prove(&self, prover: &Prover, seed: Randomness) -> SealCommitPhase2Output {
        let nodes = seal_commit_phase1::<_, Tree>(
            &self.config,
            self.at("cache"),
            self.at("sealed"),
            prover_id(self.id.miner.0),
            LibrarySector::from(self.id.number.0),
            self.ticket.0,
            seed.0,
            self.commitments.clone(),
            &[zeros()],
        )
        .unwrap();
        let inputs = PublicInputs::<TreeDomain, DefaultPieceDomain> {
            replica_id: nodes.replica_id,
            tau: Some(Tau {
                comm_d: DefaultPieceDomain::try_from_bytes(&nodes.comm_d).unwrap(),
                comm_r: TreeDomain::try_from_bytes(&nodes.comm_r).unwrap(),
            }),
            seed: Some(nodes.seed),
            k: None,
        };
        let params = public_params::<Tree>(&self.config).unwrap();
        let circuit = |(k, vanilla)| {
            <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
                '_,
                StackedDrg<'_, Tree, DefaultPieceHasher>,
                StackedCircuit<Tree, DefaultPieceHasher>,
            >>::circuit(&inputs, (), vanilla, &params, Some(k))
            .unwrap()
        };
        let proofs = nodes.vanilla_proofs.iter().enumerate().map(circuit).map(|circuit| prover.prove(circuit));
        SealCommitPhase2Output { proof: proofs.collect::<Vec<_>>().concat() }
    }
}

fn aggregate(
    kind: RegisteredSealProof,
    sealed: &[Sealed],
    seed: Randomness,
    proofs: &[SealCommitPhase2Output],
) -> Vec<u8> {
    let replicas: Vec<_> = sealed.iter().map(|s| s.comm_r().0).collect();
    let seeds = vec![seed.0; sealed.len()];
    aggregate_seal_commit_proofs(kind, RegisteredAggregationProof::SnarkPackV2, &replicas, &seeds, proofs).unwrap()
}

#[test]
#[ignore = "writes a recorded proof anew: cargo test -p damocles-seal --test params record::an_aggregate -- --ignored"]
fn an_aggregate() {
    let prover = Prover::new(CircuitKind::PoRep);
    let OfDevnet { sector, ticket, seed, .. } = of_devnet();
    let seed = seed.randomness;
    let sealed: Vec<_> =
        (1..=AGGREGATED).map(|number| Sealed::new(INTERACTIVE, sector.miner, number, ticket.randomness)).collect();
    let seal = |s: &Sealed| AggregatedSeal {
        number: s.id.number,
        comm_r: s.comm_r(),
        comm_d: s.comm_d(),
        ticket: s.ticket,
        seed,
    };
    let statement = AggregateSealStatement {
        miner: sector.miner,
        proof_type: SealProofType::of(SIZE),
        aggregation: AggregationType::SnarkPackV2,
        sectors: sealed.iter().map(seal).collect(),
    };
    let proofs: Vec<_> = sealed.iter().map(|s| s.prove(&prover, seed)).collect();
    let proof = aggregate(INTERACTIVE, &sealed, seed, &proofs);
    assert!(Groth16Verifier::new().verify_aggregate_seals(&statement, &proof).unwrap());
    write(&Recorded { statement, proof, verifying_key: prover.digest });
}

#[test]
#[ignore = "writes a recorded proof anew: cargo test -p damocles-seal --test params record::a_non_interactive -- --ignored"]
fn a_non_interactive_proof() {
    let prover = Prover::new(CircuitKind::PoRep);
    let OfDevnet { sector, ticket, .. } = of_devnet();
    let sealed = Sealed::new(NON_INTERACTIVE, sector.miner, 11, ticket.randomness);
    let proofs = [sealed.prove(&prover, NI_SEED)];
    let proof = aggregate(NON_INTERACTIVE, std::slice::from_ref(&sealed), NI_SEED, &proofs);
    let seal =
        NiSeal { number: sealed.id.number, comm_r: sealed.comm_r(), comm_d: sealed.comm_d(), ticket: sealed.ticket };
    let statement = NiSealStatement { miner: sector.miner, sector_size: SIZE, sectors: vec![seal] };
    assert!(Groth16Verifier::new().verify_ni_seals(&statement, &proof).unwrap());
    write(&Recorded { statement, proof, verifying_key: prover.digest });
}

#[test]
#[ignore = "writes a recorded proof anew: cargo test -p damocles-seal --test params record::an_update -- --ignored"]
fn an_update() {
    let prover = Prover::new(CircuitKind::SectorUpdate);
    let OfDevnet { sector, ticket, comm_r, .. } = of_devnet();
    let key = Sealed::new(INTERACTIVE, sector.miner, sector.number.0, ticket.randomness);
    assert_eq!(key.comm_r(), comm_r, "the same sector is sealed to the same replica");

    let data: Vec<u8> = (0..UNPADDED.0).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
    let (staged, replica, cache) = (key.at("data"), key.at("updated"), key.at("updated-cache"));
    let (piece, _) =
        add_piece(INTERACTIVE, data.as_slice(), fs::File::create(&staged).unwrap(), UNPADDED, &[]).unwrap();
    fs::File::create(&replica).unwrap().set_len(SECTOR_SIZE).unwrap();
    fs::create_dir(&cache).unwrap();
    let (old, old_cache) = (key.at("sealed"), key.at("cache"));
    let config = SectorUpdateConfig::from_porep_config(&UPDATE.as_v1_config());
    let encoded = encode_into::<Tree>(&config, &replica, &cache, &old, &old_cache, &staged, &[piece]).unwrap();
    let statement = UpdateStatement {
        sector_size: SIZE,
        old_comm_r: comm_r,
        new_comm_r: CommR(encoded.comm_r_new),
        new_comm_d: CommD(encoded.comm_d_new),
    };
    let inputs = storage_proofs_update::PublicInputs {
        k: usize::from(config.update_partitions),
        comm_r_old: TreeDomain::try_from_bytes(&statement.old_comm_r.0).unwrap(),
        comm_d_new: DefaultPieceDomain::try_from_bytes(&statement.new_comm_d.0).unwrap(),
        comm_r_new: TreeDomain::try_from_bytes(&statement.new_comm_r.0).unwrap(),
        h: config.h,
    };
    let partitions = generate_partition_proofs::<Tree>(
        config,
        statement.old_comm_r.0,
        statement.new_comm_r.0,
        statement.new_comm_d.0,
        &old,
        &old_cache,
        &replica,
        &cache,
    )
    .unwrap();
    let params = PublicParams::from_sector_size(SECTOR_SIZE);
    let circuit = |(k, vanilla)| {
        <EmptySectorUpdateCompound<Tree> as CompoundProof<
            '_,
            EmptySectorUpdate<Tree>,
            EmptySectorUpdateCircuit<Tree>,
        >>::circuit(&inputs, (), vanilla, &params, Some(k))
        .unwrap()
    };
    let proof = partitions.iter().enumerate().map(circuit).map(|circuit| prover.prove(circuit));
    let proof = proof.collect::<Vec<_>>().concat();
    assert!(Groth16Verifier::new().verify_replica_update(&statement, &proof).unwrap());
    write(&Recorded { statement, proof, verifying_key: prover.digest });
}
