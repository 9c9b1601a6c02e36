//! One of each call.

use damocles_core::{
    ActorId, Address, CommD, CommP, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, SealProofType,
    SectorNumber, SectorSet, SectorSize, TokenAmount, chain::*, verify::Randomness,
};

pub(crate) const MINER: ActorId = ActorId(1000);
pub(crate) const SIZE: SectorSize = SectorSize::KiB2;
pub(crate) const PEER: &str = "12D3KooWQdMqmHLoqF6bNRt7SMRhik3G8LQPdeoLdTC9N3SgBr2v";
pub(crate) const ONE_FIL: TokenAmount = TokenAmount::from_fil(1);

pub(crate) fn account(id: u64) -> Address {
    Address::from_actor(ActorId(id))
}

pub(crate) fn set(numbers: &[u64]) -> SectorSet {
    numbers.iter().copied().map(SectorNumber).collect()
}

pub(crate) fn part(deadline: u64, partition: u64, numbers: &[u64]) -> PartitionSectors {
    let (deadline, partition) = (DeadlineIndex(deadline), PartitionIndex(partition));
    PartitionSectors { deadline, partition, sectors: set(numbers) }
}

pub(crate) fn plain() -> PieceActivation {
    PieceActivation::of(PieceInfo { comm_p: CommP([2; 32]), size: 2048u64.try_into().unwrap() })
}

/// A piece that claims an allocation and tells the market actor.
pub(crate) fn verified() -> PieceActivation {
    PieceActivation {
        piece: PieceInfo { comm_p: CommP([3; 32]), size: 1024u64.try_into().unwrap() },
        allocation: Some(Allocation { client: ActorId(300), id: AllocationId(77) }),
        notify: vec![Notification { receiver: account(5), payload: vec![0x18, 0x2a] }],
    }
}

pub(crate) fn pre_commit() -> Call {
    let sector = |number, comm_d| PreCommit {
        number: SectorNumber(number),
        proof_type: SealProofType::of(SIZE),
        comm_r: CommR([7; 32]),
        comm_d,
        ticket_epoch: Epoch(100),
        expiration: Epoch(1_000_000),
    };
    let sectors = vec![sector(1, None), sector(300, Some(CommD([8; 32])))];
    Call::PreCommit(PreCommitBatch { miner: MINER, sectors })
}

pub(crate) fn prove_commit() -> ProveCommit {
    let sector = SectorProof { number: SectorNumber(1), proof: vec![1, 2, 3], pieces: vec![plain()] };
    ProveCommit { miner: MINER, sectors: vec![sector], all_or_nothing: true }
}

pub(crate) fn aggregate(count: u64) -> ProveCommitAggregate {
    let sector =
        |n: u64| SectorPieces { number: SectorNumber(n), pieces: if n == 1 { vec![verified()] } else { Vec::new() } };
    let sectors = (1..=count).map(sector).collect();
    ProveCommitAggregate { miner: MINER, sectors, proof: vec![4, 5], all_or_nothing: false }
}

pub(crate) fn updates() -> ProveReplicaUpdates {
    let sector = SectorUpdate {
        number: SectorNumber(9),
        deadline: DeadlineIndex(3),
        partition: PartitionIndex(1),
        comm_r: CommR([5; 32]),
        proof: vec![6; 3],
        pieces: vec![plain(), verified()],
    };
    ProveReplicaUpdates { miner: MINER, sector_size: SIZE, sectors: vec![sector], all_or_nothing: false }
}

pub(crate) fn non_interactive(count: u64) -> ProveCommitNi {
    let sector = |n: u64| NiSector {
        number: SectorNumber(n),
        comm_r: CommR([6; 32]),
        ticket_epoch: Epoch(99),
        expiration: Epoch(700_000),
    };
    ProveCommitNi {
        miner: MINER,
        sector_size: SectorSize::GiB32,
        sectors: (1..=count).map(sector).collect(),
        proof: vec![7, 7],
        deadline: DeadlineIndex(40),
        all_or_nothing: true,
    }
}

pub(crate) fn window_post(partitions: u64) -> SubmitWindowedPoSt {
    let partition = |n: u64| PoStPartition {
        index: PartitionIndex(n),
        skipped: if n == 1 { set(&[1, 2, 3, 10, 11, 4000]) } else { set(&[]) },
    };
    SubmitWindowedPoSt {
        miner: MINER,
        deadline: DeadlineIndex(5),
        partitions: (0..partitions).map(partition).collect(),
        proof_type: SealProofType::of(SIZE).window_post(),
        proof: vec![9; 192],
        commit_epoch: Epoch(123),
        commit_randomness: Randomness([1; 32]),
    }
}

pub(crate) fn extension() -> ExtendSectors {
    let claims = SectorClaims {
        number: SectorNumber(8),
        maintain: vec![AllocationId(70), AllocationId(71)],
        drop: vec![AllocationId(72)],
    };
    let extension = SectorExtension {
        deadline: DeadlineIndex(2),
        partition: PartitionIndex(0),
        sectors: set(&[7]),
        claimed: vec![claims],
        expiration: Epoch(2_000_000),
    };
    ExtendSectors { miner: MINER, extensions: vec![extension] }
}

/// One of each call, by name.
pub(crate) fn all() -> Vec<(&'static str, Call)> {
    let miner = MINER;
    let peer_id: PeerId = PEER.parse().unwrap();
    let multiaddrs: Vec<Multiaddr> = vec!["/ip4/1.2.3.4/tcp/24001".parse().unwrap()];
    let range = |first, last| SectorRange { first: SectorNumber(first), last: SectorNumber(last) };
    let create = CreateMiner {
        peer_id: Some(peer_id.clone()),
        multiaddrs: multiaddrs.clone(),
        ..CreateMiner::new(account(100), account(101), SIZE)
    };
    vec![
        ("CreateMiner", Call::CreateMiner(create)),
        ("PreCommitSectorBatch2", pre_commit()),
        ("ProveCommitSectors3", Call::ProveCommit(prove_commit())),
        ("ProveCommitSectors3, aggregate", Call::ProveCommitAggregate(aggregate(4))),
        ("ProveReplicaUpdates3", Call::ProveReplicaUpdates(updates())),
        ("ProveCommitSectorsNI", Call::ProveCommitNi(non_interactive(2))),
        ("SubmitWindowedPoSt", Call::SubmitWindowedPoSt(window_post(2))),
        ("DeclareFaults", Call::DeclareFaults(DeclareFaults { miner, faults: vec![part(1, 0, &[7])] })),
        (
            "DeclareFaultsRecovered",
            Call::DeclareFaultsRecovered(DeclareFaultsRecovered {
                miner,
                recoveries: vec![part(1, 0, &[7]), part(2, 300, &[1, 2, 3, 10, 11, 4000])],
            }),
        ),
        ("ExtendSectorExpiration2", Call::ExtendSectors(extension())),
        ("TerminateSectors", Call::TerminateSectors(TerminateSectors { miner, terminations: vec![part(47, 3, &[7])] })),
        (
            "CompactPartitions",
            Call::CompactPartitions(CompactPartitions {
                miner,
                deadline: DeadlineIndex(1),
                partitions: [PartitionIndex(7)].into(),
            }),
        ),
        (
            "CompactSectorNumbers",
            Call::CompactSectorNumbers(CompactSectorNumbers {
                miner,
                mask: vec![range(1, 3), range(10, 11), range(4000, 4000)],
            }),
        ),
        ("WithdrawBalance", Call::WithdrawBalance(WithdrawBalance { miner, amount: ONE_FIL, from: None })),
        ("RepayDebt", Call::RepayDebt(RepayDebt { miner, amount: ONE_FIL })),
        (
            "ChangeWorkerAddress",
            Call::ChangeWorker(ChangeWorker {
                miner,
                worker: account(101),
                control: vec![account(102), account(1_000_000)],
                from: None,
            }),
        ),
        ("ConfirmChangeWorkerAddress", Call::ConfirmChangeWorker(ConfirmChangeWorker { miner, from: None })),
        ("ChangeOwnerAddress", Call::ChangeOwner(ChangeOwner { miner, owner: account(200), from: None })),
        (
            "ChangeBeneficiary",
            Call::ChangeBeneficiary(ChangeBeneficiary {
                miner,
                beneficiary: account(201),
                quota: ONE_FIL,
                expiration: Epoch(5_000_000),
                from: None,
            }),
        ),
        ("ChangePeerID", Call::ChangePeerId(ChangePeerId { miner, peer_id: Some(peer_id) })),
        ("ChangeMultiaddrs", Call::ChangeMultiaddrs(ChangeMultiaddrs { miner, multiaddrs })),
        ("Send", Call::Send(Transfer { from: account(100), to: account(300), amount: ONE_FIL })),
    ]
}
