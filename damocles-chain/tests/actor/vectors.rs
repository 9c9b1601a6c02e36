//! The bytes of each call: as recorded, as written by hand, and as the actor's own types read them.

use crate::{
    by_hand::{amount, array, bit_field, bool, bytes, comm_d, comm_r, id, int, null, uint},
    samples,
};
use damocles_chain::encode;
use damocles_core::chain::Call;
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fvm_ipld_encoding::de::DeserializeOwned;
use serde::Serialize;
use std::fmt::Write as _;

const ONE_FIL: u128 = 1_000_000_000_000_000_000;

#[test]
fn the_bytes_are_those_that_were_recorded() {
    let mut text = String::new();
    for (name, call) in samples::all() {
        let encoded = encode(&call).unwrap();
        let to = encoded.to.to_string();
        let params = hex::encode(encoded.params.bytes());
        writeln!(text, "{name}\n  to {}  method {}\n  {params}", to.get(1..).unwrap(), encoded.method).unwrap();
    }
    insta::assert_snapshot!(text);
}

fn plain() -> Vec<u8> {
    array(&[comm_d([2; 32]), uint(2048), null(), array(&[])])
}

fn verified() -> Vec<u8> {
    let told = array(&[id(5), bytes(&[0x18, 0x2a])]);
    array(&[comm_d([3; 32]), uint(1024), array(&[uint(300), uint(77)]), array(&[told])])
}

/// A peer ID of an Ed25519 key in base 58.
fn peer() -> Vec<u8> {
    const DIGITS: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut number: Vec<u8> = Vec::new();
    for digit in samples::PEER.chars() {
        let mut carry = DIGITS.find(digit).unwrap();
        for byte in number.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = u8::try_from(carry & 0xff).unwrap();
            carry >>= 8;
        }
        if carry > 0 {
            number.insert(0, u8::try_from(carry).unwrap());
        }
    }
    // The leading `1` stands for a byte of zeros: the code of the identity hash.
    [&[0][..], &number].concat()
}

/// `/ip4/1.2.3.4/tcp/24001`: code 4 and four bytes, code 6 and two.
const MULTIADDR: [u8; 8] = [4, 1, 2, 3, 4, 6, 0x5d, 0xc1];

fn declaration(deadline: u64, partition: u64, numbers: &[u64]) -> Vec<u8> {
    array(&[uint(deadline), uint(partition), bit_field(numbers)])
}

fn commits(call: &Call) -> Option<(u64, Vec<u8>)> {
    let seal =
        |n: u64, data: Vec<u8>| array(&[uint(5), uint(n), comm_r([7; 32]), int(100), array(&[]), int(1_000_000), data]);
    let ni = |n: u64| array(&[uint(n), uint(1000), comm_r([6; 32]), uint(n), int(99), int(700_000)]);
    let empty = |n: u64| array(&[uint(n), array(&[])]);
    Some(match call {
        Call::PreCommit(_) => (28, array(&[array(&[seal(1, null()), seal(300, comm_d([8; 32]))])])),
        Call::ProveCommit(_) => {
            let activation = array(&[uint(1), array(&[plain()])]);
            let proofs = array(&[bytes(&[1, 2, 3])]);
            (34, array(&[array(&[activation]), proofs, bytes(&[]), null(), bool(true), bool(false)]))
        }
        Call::ProveCommitAggregate(_) => {
            let first = array(&[uint(1), array(&[verified()])]);
            let activations = array(&[first, empty(2), empty(3), empty(4)]);
            (34, array(&[activations, array(&[]), bytes(&[4, 5]), int(1), bool(false), bool(false)]))
        }
        Call::ProveReplicaUpdates(_) => {
            let pieces = array(&[plain(), verified()]);
            let update = array(&[uint(9), uint(3), uint(1), comm_r([5; 32]), pieces]);
            let proofs = array(&[bytes(&[6, 6, 6])]);
            (35, array(&[array(&[update]), proofs, bytes(&[]), int(0), null(), bool(false), bool(false)]))
        }
        Call::ProveCommitNi(_) => {
            let sectors = array(&[ni(1), ni(2)]);
            (36, array(&[sectors, bytes(&[7, 7]), int(18), int(1), uint(40), bool(true)]))
        }
        _ => return None,
    })
}

fn by_hand(call: &Call) -> (u64, Vec<u8>) {
    if let Some(commit) = commits(call) {
        return commit;
    }
    let many: &[u64] = &[1, 2, 3, 10, 11, 4000];
    match call {
        Call::CreateMiner(_) => (2, array(&[id(100), id(101), int(10), bytes(&peer()), array(&[bytes(&MULTIADDR)])])),
        Call::SubmitWindowedPoSt(_) => {
            let partitions = array(&[array(&[uint(0), bit_field(&[])]), array(&[uint(1), bit_field(many)])]);
            let proofs = array(&[array(&[int(10), bytes(&[9; 192])])]);
            (5, array(&[uint(5), partitions, proofs, int(123), bytes(&[1; 32])]))
        }
        Call::DeclareFaults(_) => (10, array(&[array(&[declaration(1, 0, &[7])])])),
        Call::DeclareFaultsRecovered(_) => (11, array(&[array(&[declaration(1, 0, &[7]), declaration(2, 300, many)])])),
        Call::ExtendSectors(_) => {
            let claims = array(&[uint(8), array(&[uint(70), uint(71)]), array(&[uint(72)])]);
            let extension = array(&[uint(2), uint(0), bit_field(&[7]), array(&[claims]), int(2_000_000)]);
            (32, array(&[array(&[extension])]))
        }
        Call::TerminateSectors(_) => (9, array(&[array(&[declaration(47, 3, &[7])])])),
        Call::CompactPartitions(_) => (19, array(&[uint(1), bit_field(&[7])])),
        Call::CompactSectorNumbers(_) => (20, array(&[bit_field(many)])),
        Call::WithdrawBalance(_) => (16, array(&[amount(ONE_FIL)])),
        Call::RepayDebt(_) => (22, Vec::new()),
        Call::ChangeWorker(_) => (3, array(&[id(101), array(&[id(102), id(1_000_000)])])),
        Call::ConfirmChangeWorker(_) => (21, Vec::new()),
        Call::ChangeOwner(_) => (23, id(200)),
        Call::ChangeBeneficiary(_) => (30, array(&[id(201), amount(ONE_FIL), int(5_000_000)])),
        Call::ChangePeerId(_) => (4, array(&[bytes(&peer())])),
        Call::ChangeMultiaddrs(_) => (18, array(&[array(&[bytes(&MULTIADDR)])])),
        Call::Send(_) => (0, Vec::new()),
        other => panic!("not written by hand: {other:?}"),
    }
}

#[test]
fn the_bytes_are_those_written_by_hand() {
    for (name, call) in samples::all() {
        let encoded = encode(&call).unwrap();
        let (method, params) = by_hand(&call);
        assert_eq!(encoded.method, method, "{name}");
        assert_eq!(hex::encode(encoded.params.bytes()), hex::encode(params), "{name}");
    }
}

/// The actor's own type reads the bytes, and writes them the same.
fn reads<T: DeserializeOwned + Serialize>(name: &str, params: &[u8]) {
    let read: T = fvm_ipld_encoding::from_slice(params).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(fvm_ipld_encoding::to_vec(&read).unwrap(), params, "{name}");
}

#[test]
fn the_types_of_the_actors_read_the_bytes() {
    for (name, call) in samples::all() {
        let encoded = encode(&call).unwrap();
        let params = encoded.params.bytes();
        match call {
            Call::CreateMiner(_) => reads::<power::CreateMinerParams>(name, params),
            Call::PreCommit(_) => reads::<miner::PreCommitSectorBatchParams2>(name, params),
            Call::ProveCommit(_) | Call::ProveCommitAggregate(_) => {
                reads::<miner::ProveCommitSectors3Params>(name, params);
            }
            Call::ProveReplicaUpdates(_) => reads::<miner::ProveReplicaUpdates3Params>(name, params),
            Call::ProveCommitNi(_) => reads::<miner::ProveCommitSectorsNIParams>(name, params),
            Call::SubmitWindowedPoSt(_) => reads::<miner::SubmitWindowedPoStParams>(name, params),
            Call::DeclareFaults(_) => reads::<miner::DeclareFaultsParams>(name, params),
            Call::DeclareFaultsRecovered(_) => reads::<miner::DeclareFaultsRecoveredParams>(name, params),
            Call::ExtendSectors(_) => reads::<miner::ExtendSectorExpiration2Params>(name, params),
            Call::TerminateSectors(_) => reads::<miner::TerminateSectorsParams>(name, params),
            Call::CompactPartitions(_) => reads::<miner::CompactPartitionsParams>(name, params),
            Call::CompactSectorNumbers(_) => reads::<miner::CompactSectorNumbersParams>(name, params),
            Call::WithdrawBalance(_) => reads::<miner::WithdrawBalanceParams>(name, params),
            Call::ChangeWorker(_) => reads::<miner::ChangeWorkerAddressParams>(name, params),
            Call::ChangeOwner(_) => reads::<miner::ChangeOwnerAddressParams>(name, params),
            Call::ChangeBeneficiary(_) => reads::<miner::ChangeBeneficiaryParams>(name, params),
            Call::ChangePeerId(_) => reads::<miner::ChangePeerIDParams>(name, params),
            Call::ChangeMultiaddrs(_) => reads::<miner::ChangeMultiaddrsParams>(name, params),
            Call::RepayDebt(_) | Call::ConfirmChangeWorker(_) | Call::Send(_) => assert!(params.is_empty(), "{name}"),
            other => panic!("no type for {other:?}"),
        }
    }
}
