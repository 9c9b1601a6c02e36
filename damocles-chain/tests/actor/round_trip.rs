//! What is encoded reads back; what is not ours does not.

use crate::samples::{self, MINER, account};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_chain::{decode_call, decode_message, encode};
use damocles_core::{
    ActorId, Address, CommD, CommP, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, SealProofType,
    SectorNumber, SectorSet, SectorSize, TokenAmount, chain::*, verify::Randomness,
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{bigint::BigInt, econ, message::Message};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

fn proof() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..40)
}

fn address() -> impl Strategy<Value = Address> {
    any::<u64>().prop_map(|id| account(id >> 1))
}

fn size() -> impl Strategy<Value = SectorSize> {
    select(SectorSize::ALL.to_vec())
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<i64>().prop_map(Epoch)
}

/// As many distinct sector numbers, over the whole range that the actor takes.
fn numbers(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<SectorNumber>> {
    btree_set(any::<u64>(), count).prop_map(|set| {
        let halved: std::collections::BTreeSet<u64> = set.into_iter().map(|n| n >> 1).collect();
        halved.into_iter().map(SectorNumber).collect()
    })
}

fn sectors() -> impl Strategy<Value = SectorSet> {
    vec(0u64..10_000, 0..40).prop_map(|numbers| numbers.into_iter().map(SectorNumber).collect())
}

fn deadline() -> impl Strategy<Value = DeadlineIndex> {
    (0u64..48).prop_map(DeadlineIndex)
}

fn amount() -> impl Strategy<Value = TokenAmount> {
    (0..2_000_000_000_000_000_000_000_000_000i128).prop_map(TokenAmount::from_atto)
}

fn piece() -> impl Strategy<Value = PieceActivation> {
    let info = (any::<[u8; 32]>(), 7u32..36)
        .prop_map(|(comm_p, power)| PieceInfo { comm_p: CommP(comm_p), size: (1u64 << power).try_into().unwrap() });
    let allocation = (any::<u64>(), any::<u64>())
        .prop_map(|(client, id)| Allocation { client: ActorId(client), id: AllocationId(id) });
    let notify =
        (address(), vec(any::<u8>(), 0..20)).prop_map(|(receiver, payload)| Notification { receiver, payload });
    (info, option::of(allocation), vec(notify, 0..3)).prop_map(|(piece, allocation, notify)| PieceActivation {
        piece,
        allocation,
        notify,
    })
}

fn pieces() -> impl Strategy<Value = Vec<PieceActivation>> {
    vec(piece(), 0..3)
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(|key| {
        let bytes = [&[0, 0x24, 8, 1, 0x12, 0x20][..], &key].concat();
        multiaddr::PeerId::from_bytes(&bytes).unwrap().to_base58().parse().unwrap()
    })
}

fn multiaddrs() -> impl Strategy<Value = Vec<Multiaddr>> {
    let one = (any::<[u8; 4]>(), any::<u16>(), any::<bool>()).prop_map(|([a, b, c, d], port, quic)| {
        let way = if quic { format!("udp/{port}/quic-v1") } else { format!("tcp/{port}") };
        format!("/ip4/{a}.{b}.{c}.{d}/{way}").parse().unwrap()
    });
    vec(one, 0..4)
}

fn parts() -> impl Strategy<Value = Vec<PartitionSectors>> {
    btree_map((0u64..48, any::<u64>().prop_map(|p| p >> 1)), sectors(), 0..6).prop_map(|parts| {
        let part = |((deadline, partition), sectors)| PartitionSectors {
            deadline: DeadlineIndex(deadline),
            partition: PartitionIndex(partition),
            sectors,
        };
        parts.into_iter().map(part).collect()
    })
}

fn commit() -> BoxedStrategy<Call> {
    let miner = MINER;
    let data = (any::<[u8; 32]>(), option::of(any::<[u8; 32]>()), epoch(), epoch(), size());
    let pre_commit =
        (numbers(1..5), data).prop_map(move |(numbers, (comm_r, comm_d, ticket_epoch, expiration, size))| {
            let sector = |number| PreCommit {
                number,
                proof_type: SealProofType::of(size),
                comm_r: CommR(comm_r),
                comm_d: comm_d.map(CommD),
                ticket_epoch,
                expiration,
            };
            Call::PreCommit(PreCommitBatch { miner, sectors: numbers.into_iter().map(sector).collect() })
        });
    let prove = (numbers(1..5), proof(), pieces(), any::<bool>()).prop_map(move |(numbers, proof, pieces, all)| {
        let sector = |number| SectorProof { number, proof: proof.clone(), pieces: pieces.clone() };
        let sectors = numbers.into_iter().map(sector).collect();
        Call::ProveCommit(ProveCommit { miner, sectors, all_or_nothing: all })
    });
    let many = (0u64..1 << 60, 4u64..20, proof(), pieces(), any::<bool>());
    let aggregate = many.prop_map(move |(first, count, proof, pieces, all_or_nothing)| {
        let sector = |n| SectorPieces { number: SectorNumber(first + n), pieces: pieces.clone() };
        let sectors = (0..count).map(sector).collect();
        Call::ProveCommitAggregate(ProveCommitAggregate { miner, sectors, proof, all_or_nothing })
    });
    let place = (deadline(), any::<u64>(), any::<[u8; 32]>());
    let updates = (numbers(1..4), size(), place, proof(), pieces(), any::<bool>()).prop_map(
        move |(numbers, sector_size, (deadline, partition, comm_r), proof, pieces, all_or_nothing)| {
            let sector = |number| SectorUpdate {
                number,
                deadline,
                partition: PartitionIndex(partition),
                comm_r: CommR(comm_r),
                proof: proof.clone(),
                pieces: pieces.clone(),
            };
            let sectors = numbers.into_iter().map(sector).collect();
            Call::ProveReplicaUpdates(ProveReplicaUpdates { miner, sector_size, sectors, all_or_nothing })
        },
    );
    let sealed = (any::<[u8; 32]>(), epoch(), epoch());
    let ni = (numbers(1..5), size(), sealed, proof(), deadline(), any::<bool>()).prop_map(
        move |(numbers, sector_size, (comm_r, ticket_epoch, expiration), proof, deadline, all_or_nothing)| {
            let sector = |number| NiSector { number, comm_r: CommR(comm_r), ticket_epoch, expiration };
            let sectors = numbers.into_iter().map(sector).collect();
            Call::ProveCommitNi(ProveCommitNi { miner, sector_size, sectors, proof, deadline, all_or_nothing })
        },
    );
    prop_oneof![pre_commit, prove, aggregate, updates, ni].boxed()
}

fn keep() -> BoxedStrategy<Call> {
    let miner = MINER;
    let partitions = btree_map(any::<u64>(), sectors(), 1..4);
    let post = (deadline(), partitions, size(), proof(), epoch(), any::<[u8; 32]>()).prop_map(
        move |(deadline, partitions, size, proof, commit_epoch, randomness)| {
            let partition = |(index, skipped)| PoStPartition { index: PartitionIndex(index), skipped };
            Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
                miner,
                deadline,
                partitions: partitions.into_iter().map(partition).collect(),
                proof_type: SealProofType::of(size).window_post(),
                proof,
                commit_epoch,
                commit_randomness: Randomness(randomness),
            })
        },
    );
    let faults = parts().prop_map(move |faults| Call::DeclareFaults(DeclareFaults { miner, faults }));
    let recoveries =
        parts().prop_map(move |recoveries| Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries }));
    let terminate =
        parts().prop_map(move |terminations| Call::TerminateSectors(TerminateSectors { miner, terminations }));
    let ids = || vec(any::<u64>().prop_map(AllocationId), 0..3);
    let claims = (any::<u64>(), ids(), ids()).prop_map(|(n, maintain, drop)| SectorClaims {
        number: SectorNumber(n >> 1),
        maintain,
        drop,
    });
    let extension = (deadline(), any::<u64>(), sectors(), vec(claims, 0..3), epoch()).prop_map(
        |(deadline, partition, sectors, claimed, expiration)| SectorExtension {
            deadline,
            partition: PartitionIndex(partition),
            sectors,
            claimed,
            expiration,
        },
    );
    let extend =
        vec(extension, 0..4).prop_map(move |extensions| Call::ExtendSectors(ExtendSectors { miner, extensions }));
    let compact = (deadline(), btree_set(0u64..5000, 0..20)).prop_map(move |(deadline, partitions)| {
        let partitions = partitions.into_iter().map(PartitionIndex).collect();
        Call::CompactPartitions(CompactPartitions { miner, deadline, partitions })
    });
    // Ranges that neither touch nor overlap, as they come back: each is a gap and a length.
    let mask = vec((1u64..1 << 40, 1u64..1 << 40), 1..20).prop_map(move |runs| {
        let mut at = 0;
        let range = |(gap, len): (u64, u64)| {
            let first = at + gap;
            at = first + len;
            SectorRange { first: SectorNumber(first), last: SectorNumber(at - 1) }
        };
        Call::CompactSectorNumbers(CompactSectorNumbers { miner, mask: runs.into_iter().map(range).collect() })
    });
    prop_oneof![post, faults, recoveries, terminate, extend, compact, mask].boxed()
}

fn own() -> BoxedStrategy<Call> {
    let miner = MINER;
    let create = (address(), address(), size(), option::of(peer()), multiaddrs()).prop_map(
        |(owner, worker, sector_size, peer_id, multiaddrs)| {
            Call::CreateMiner(CreateMiner { owner, worker, sector_size, peer_id, multiaddrs })
        },
    );
    let withdraw = (amount(), address())
        .prop_map(move |(amount, from)| Call::WithdrawBalance(WithdrawBalance { miner, amount, from: Some(from) }));
    let repay = amount().prop_map(move |amount| Call::RepayDebt(RepayDebt { miner, amount }));
    let worker = (address(), vec(address(), 0..11))
        .prop_map(move |(worker, control)| Call::ChangeWorker(ChangeWorker { miner, worker, control, from: None }));
    let confirm = Just(Call::ConfirmChangeWorker(ConfirmChangeWorker { miner, from: None }));
    let owner = (address(), address())
        .prop_map(move |(owner, from)| Call::ChangeOwner(ChangeOwner { miner, owner, from: Some(from) }));
    let beneficiary =
        (address(), 1..1_000_000i128, epoch(), address()).prop_map(move |(beneficiary, quota, expiration, from)| {
            let (quota, from) = (TokenAmount::from_atto(quota), Some(from));
            Call::ChangeBeneficiary(ChangeBeneficiary { miner, beneficiary, quota, expiration, from })
        });
    let peer_id = option::of(peer()).prop_map(move |peer_id| Call::ChangePeerId(ChangePeerId { miner, peer_id }));
    let multiaddrs =
        multiaddrs().prop_map(move |multiaddrs| Call::ChangeMultiaddrs(ChangeMultiaddrs { miner, multiaddrs }));
    let send =
        (address(), address(), amount()).prop_map(|(from, to, amount)| Call::Send(Transfer { from, to, amount }));
    prop_oneof![create, withdraw, repay, worker, confirm, owner, beneficiary, peer_id, multiaddrs, send].boxed()
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![commit(), keep(), own()]
}

fn value(call: &Call) -> TokenAmount {
    match call {
        Call::RepayDebt(call) => call.amount,
        Call::Send(call) => call.amount,
        _ => TokenAmount::ZERO,
    }
}

/// The message of a call, from whom the call says or from an account.
fn message(call: &Call) -> Message {
    let encoded = encode(call).unwrap_or_else(|e| panic!("{e}: {call:?}"));
    let from = call.sender().cloned().unwrap_or_else(|| account(100));
    Message {
        from: damocles_chain::lotus_json::from_core(&from).unwrap(),
        to: encoded.to,
        method_num: encoded.method,
        params: encoded.params,
        value: econ::TokenAmount::from_atto(BigInt::from(value(call).atto())),
        ..Message {
            version: 0,
            from: fvm_shared::address::Address::new_id(0),
            to: fvm_shared::address::Address::new_id(0),
            sequence: 0,
            value: econ::TokenAmount::default(),
            method_num: 0,
            params: RawBytes::default(),
            gas_limit: 0,
            gas_fee_cap: econ::TokenAmount::default(),
            gas_premium: econ::TokenAmount::default(),
        }
    }
}

/// What parameters alone do not tell.
fn anonymous(mut call: Call) -> Call {
    match &mut call {
        Call::RepayDebt(call) => call.amount = TokenAmount::ZERO,
        Call::WithdrawBalance(call) => call.from = None,
        Call::ChangeOwner(call) => call.from = None,
        Call::ChangeBeneficiary(call) => call.from = None,
        _ => {}
    }
    call
}

fn decode(method: u64, params: &[u8]) -> Option<Call> {
    decode_call(MINER, method, &STANDARD.encode(params))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn calls_read_back(call in call()) {
        let message = message(&call);
        let read = decode_message(&message);
        prop_assert_eq!(read.as_ref(), Some(&call));
        if call.miner().is_some() {
            let read = decode(message.method_num, message.params.bytes());
            prop_assert_eq!(read, Some(anonymous(call.clone())));
        }
        let json = serde_json::to_string(&call).unwrap();
        prop_assert_eq!(serde_json::from_str::<Call>(&json).unwrap(), call);
    }

    #[test]
    fn hostile_parameters_are_calls_or_nothing(method in 0u64..40, params in vec(any::<u8>(), 0..120)) {
        if let Some(call) = decode(method, &params) {
            prop_assert_eq!(call.miner(), Some(MINER));
        }
    }

    /// A byte that is not what it was, somewhere in parameters that were good.
    #[test]
    fn damaged_parameters_are_calls_or_nothing(call in call(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = message(&call);
        let mut params = message.params.bytes().to_vec();
        prop_assume!(!params.is_empty());
        let at = at.index(params.len());
        params[at] = byte;
        message.params = RawBytes::new(params.clone());
        if let Some(other) = decode_message(&message) {
            prop_assert_eq!(other.kind(), call.kind());
            // What was read can be written again, or a bound of the actor's says why not.
            let _ = encode(&other);
        }
        params.truncate(at);
        prop_assert_eq!(decode(message.method_num, &params).filter(|_| at > 0), None, "half of it is nothing");
    }
}

#[test]
fn messages_that_are_not_ours_are_none() {
    let good = message(&samples::pre_commit());
    let with = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        decode_message(&message)
    };
    assert!(with(|_| {}).is_some());
    assert_eq!(with(|m| m.method_num = 6), None, "a method that is gone");
    assert_eq!(with(|m| m.method_num = 0), None, "money with parameters");
    assert_eq!(with(|m| m.to = fvm_shared::address::Address::new_id(4)), None, "the power actor has no such method");
    assert_eq!(with(|m| m.to = fvm_shared::address::Address::new_actor(b"x")), None, "a miner without its ID");
    assert_eq!(with(|m| m.value = econ::TokenAmount::from_atto(BigInt::from(1) << 200)), None, "more than there is");
    assert_eq!(decode_call(MINER, 5, "rubbish!"), None);
    assert_eq!(decode(5, &[0, 0, 0]), None);
}
