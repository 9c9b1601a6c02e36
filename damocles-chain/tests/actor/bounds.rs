//! What no actor takes is refused before it is sent, and what it just takes is not.

use crate::samples::{self, MINER, account, aggregate, non_interactive, part, prove_commit, set, updates, window_post};
use damocles_chain::{EncodeError, LimitError, encode};
use damocles_core::{
    Address, DeadlineIndex, Epoch, PartitionIndex, SectorNumber, SectorSet, TokenAmount,
    chain::{
        Call, ChangeBeneficiary, ChangeMultiaddrs, ChangeOwner, ChangePeerId, ChangeWorker, CompactPartitions,
        CompactSectorNumbers, DeclareFaults, DeclareFaultsRecovered, ExtendSectors, PartitionSectors, PreCommitBatch,
        ProveCommit, RepayDebt, SectorRange, TerminateSectors, Transfer, WithdrawBalance,
    },
};

fn refused(call: &Call) -> LimitError {
    match encode(call) {
        Err(EncodeError::Limit(limit)) => limit,
        other => panic!("{call:?} gives {other:?}"),
    }
}

fn says(call: &Call, text: &str) {
    let limit = refused(call).to_string();
    assert!(limit.contains(text), "{limit:?} does not say {text:?}");
}

fn taken(call: &Call) {
    encode(call).unwrap_or_else(|e| panic!("{e}: {call:?}"));
}

#[test]
fn aggregates() {
    for count in [4, 819] {
        taken(&Call::ProveCommitAggregate(aggregate(count)));
    }
    for count in [0, 3, 820] {
        says(&Call::ProveCommitAggregate(aggregate(count)), "takes 4 to 819");
    }
    for count in [1, 65] {
        taken(&Call::ProveCommitNi(non_interactive(count)));
    }
    for count in [0, 66] {
        says(&Call::ProveCommitNi(non_interactive(count)), "takes 1 to 65");
    }
    for (bytes, fits) in [(0, false), (81_960, true), (81_961, false)] {
        let proof = vec![1; bytes];
        let interactive = Call::ProveCommitAggregate(samples_with(aggregate(4), |c| c.proof.clone_from(&proof)));
        let other = Call::ProveCommitNi(samples_with(non_interactive(1), |c| c.proof.clone_from(&proof)));
        for call in [interactive, other] {
            if fits { taken(&call) } else { says(&call, "takes 1 to 81960") }
        }
    }
}

fn samples_with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

#[test]
fn batches() {
    says(&Call::PreCommit(PreCommitBatch { miner: MINER, sectors: Vec::new() }), "0 sectors");
    says(&Call::ProveCommit(ProveCommit { sectors: Vec::new(), ..prove_commit() }), "0 sectors");
    let Call::PreCommit(batch) = samples::pre_commit() else { panic!() };
    let twice = samples_with(batch.clone(), |b| b.sectors.push(b.sectors[0].clone()));
    assert_eq!(refused(&Call::PreCommit(twice)), LimitError::Twice { what: "sector", number: 1 });
    let numbered = |n| samples_with(batch.clone(), |b| b.sectors[0].number = SectorNumber(n));
    taken(&Call::PreCommit(numbered((1 << 63) - 1)));
    says(&Call::PreCommit(numbered(1 << 63)), "sector number 9223372036854775808 is beyond 9223372036854775807");

    for (bytes, fits) in [(0, false), (1920, true), (1921, false)] {
        let call = Call::ProveCommit(samples_with(prove_commit(), |c| c.sectors[0].proof = vec![1; bytes]));
        if fits { taken(&call) } else { says(&call, "takes 1 to 1920") }
    }
    for (bytes, fits) in [(0, false), (4096, true), (4097, false)] {
        let call = Call::ProveReplicaUpdates(samples_with(updates(), |c| c.sectors[0].proof = vec![1; bytes]));
        if fits { taken(&call) } else { says(&call, "takes 1 to 4096") }
    }
}

#[test]
fn posts() {
    for count in [1, 3] {
        taken(&Call::SubmitWindowedPoSt(window_post(count)));
    }
    for count in [0, 4] {
        says(&Call::SubmitWindowedPoSt(window_post(count)), "takes 1 to 3");
    }
    let twice = samples_with(window_post(2), |c| c.partitions[1].index = PartitionIndex(0));
    assert_eq!(refused(&Call::SubmitWindowedPoSt(twice)), LimitError::Twice { what: "partition", number: 0 });
    for (bytes, fits) in [(0, false), (384, true), (385, false)] {
        let call = Call::SubmitWindowedPoSt(samples_with(window_post(2), |c| c.proof = vec![1; bytes]));
        if fits { taken(&call) } else { says(&call, "takes 1 to 384") }
    }
}

fn declarations(parts: &[PartitionSectors]) -> [Call; 3] {
    let (miner, parts) = (MINER, parts.to_vec());
    [
        Call::DeclareFaults(DeclareFaults { miner, faults: parts.clone() }),
        Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries: parts.clone() }),
        Call::TerminateSectors(TerminateSectors { miner, terminations: parts }),
    ]
}

#[test]
fn what_one_message_may_name() {
    let many = |n: u64| (0..n).map(SectorNumber).collect::<SectorSet>();
    let partitions = |n: u64| (0..n).map(|p| part(1, p, &[])).collect::<Vec<_>>();
    let sectors = |n: u64| vec![PartitionSectors { sectors: many(n), ..part(1, 0, &[]) }];
    for call in declarations(&partitions(3000)).into_iter().chain(declarations(&sectors(25_000))) {
        taken(&call);
    }
    for call in declarations(&partitions(3001)) {
        says(&call, "3001 partitions, and the actor takes 0 to 3000");
    }
    for call in declarations(&sectors(25_001)) {
        says(&call, "25001 sectors, and the actor takes 0 to 25000");
    }
    // The same partition twice is one partition.
    let doubled = [partitions(3000), partitions(3000)].concat();
    declarations(&doubled).iter().for_each(taken);

    let extend = |n| {
        let extension = samples_with(samples::extension(), |e| e.extensions[0].sectors = many(n));
        Call::ExtendSectors(extension)
    };
    taken(&extend(24_999));
    says(&extend(25_000), "25001 sectors");
    let long = ExtendSectors { extensions: vec![samples::extension().extensions[0].clone(); 3001], miner: MINER };
    says(&Call::ExtendSectors(long), "3001 partitions");
    let compact = |n| {
        let partitions = (0..n).map(PartitionIndex).collect();
        Call::CompactPartitions(CompactPartitions { miner: MINER, deadline: DeadlineIndex(0), partitions })
    };
    taken(&compact(3000));
    says(&compact(3001), "takes 0 to 3000");
}

#[test]
fn deadlines() {
    let at = |deadline: u64| {
        let index = DeadlineIndex(deadline);
        let compact = CompactPartitions { miner: MINER, deadline: index, partitions: [PartitionIndex(0)].into() };
        let others = [
            Call::SubmitWindowedPoSt(samples_with(window_post(1), |c| c.deadline = index)),
            Call::ProveCommitNi(samples_with(non_interactive(1), |c| c.deadline = index)),
            Call::ProveReplicaUpdates(samples_with(updates(), |c| c.sectors[0].deadline = index)),
            Call::ExtendSectors(samples_with(samples::extension(), |c| c.extensions[0].deadline = index)),
            Call::CompactPartitions(compact),
        ];
        others.into_iter().chain(declarations(&[part(deadline, 0, &[1])]))
    };
    at(47).for_each(|call| taken(&call));
    for call in at(48) {
        assert_eq!(refused(&call), LimitError::Beyond { what: "deadline", got: 48, most: 47 });
    }
}

#[test]
fn masks_of_sector_numbers() {
    let mask = |ranges: &[(u64, u64)]| {
        let range = |(first, last): &(u64, u64)| SectorRange { first: SectorNumber(*first), last: SectorNumber(*last) };
        Call::CompactSectorNumbers(CompactSectorNumbers { miner: MINER, mask: ranges.iter().map(range).collect() })
    };
    says(&mask(&[]), "0 ranges");
    says(&mask(&[(0, 1 << 63)]), "is beyond");
    assert_eq!(refused(&mask(&[(5, 4)])), LimitError::EmptyRange { first: 5, last: 4 });
    taken(&mask(&[(0, (1 << 63) - 1)]));
    // However they are told, the numbers are the same.
    let plain = encode(&mask(&[(1, 9)])).unwrap();
    for same in [&[(5, 9), (1, 4)][..], &[(1, 6), (3, 9)], &[(1, 9), (2, 3)]] {
        assert_eq!(encode(&mask(same)).unwrap(), plain);
    }
}

#[test]
fn money() {
    let below = TokenAmount::from_atto(-1);
    let calls = |amount| {
        [
            Call::WithdrawBalance(WithdrawBalance { miner: MINER, amount, from: None }),
            Call::RepayDebt(RepayDebt { miner: MINER, amount }),
            Call::Send(Transfer { from: account(1), to: account(2), amount }),
        ]
    };
    calls(TokenAmount::ZERO).iter().for_each(taken);
    for call in calls(below) {
        says(&call, "is negative");
    }
    let change = |quota, expiration| {
        let (beneficiary, from, expiration) = (account(9), None, Epoch(expiration));
        Call::ChangeBeneficiary(ChangeBeneficiary { miner: MINER, beneficiary, quota, expiration, from })
    };
    taken(&change(TokenAmount::ZERO, 0));
    taken(&change(TokenAmount::from_atto(1), 5));
    says(&change(below, 5), "is negative");
    assert_eq!(refused(&change(TokenAmount::ZERO, 5)), LimitError::TermWithoutQuota { expiration: 5 });
}

#[test]
fn addresses_and_peers() {
    let worker = |n: u64| {
        let control = (0..n).map(account).collect();
        Call::ChangeWorker(ChangeWorker { miner: MINER, worker: account(101), control, from: None })
    };
    taken(&worker(10));
    says(&worker(11), "11 control addresses, and the actor takes 0 to 10");
    let key: Address = "t1d2xrzcslx7xlbbylc5c3d5lvandqw4iwl6epxba".parse().unwrap();
    let owner = Call::ChangeOwner(ChangeOwner { miner: MINER, owner: key.clone(), from: None });
    assert_eq!(refused(&owner), LimitError::OwnerById { owner: key.to_string() });
    let typo: Address = "t1d2xrzcslx7xlbbylc5c3d5lvandqw4iwl6epxbb".parse().unwrap();
    let send = Call::Send(Transfer { from: account(1), to: typo, amount: TokenAmount::ZERO });
    assert!(matches!(encode(&send), Err(EncodeError::Address(_))));

    let many = |count: usize| {
        let multiaddrs = vec!["/ip4/1.2.3.4/tcp/24001".parse().unwrap(); count];
        Call::ChangeMultiaddrs(ChangeMultiaddrs { miner: MINER, multiaddrs })
    };
    taken(&many(0));
    taken(&many(128));
    says(&many(129), "1032 bytes of multiaddresses, and the actor takes 0 to 1024");
    let wrong = ChangeMultiaddrs { miner: MINER, multiaddrs: vec!["/ip4/300.1.1.1".parse().unwrap()] };
    assert!(matches!(encode(&Call::ChangeMultiaddrs(wrong)), Err(EncodeError::Multiaddr(_))));
    taken(&Call::ChangePeerId(ChangePeerId { miner: MINER, peer_id: None }));
    let wrong = ChangePeerId { miner: MINER, peer_id: Some("12D3KooW".parse().unwrap()) };
    assert!(matches!(encode(&Call::ChangePeerId(wrong)), Err(EncodeError::PeerId(_))));
}

#[test]
fn numbers_beyond_a_bit_field() {
    let far = [PartitionSectors { sectors: set(&[u64::MAX]), ..part(0, 0, &[]) }];
    for call in declarations(&far) {
        assert!(matches!(encode(&call), Err(EncodeError::Sectors(_))), "{call:?}");
    }
}
