//! The whole life of a sector, and each wrong turn with its exit code.

use crate::harness::{Key, Net, Sector, refused};
use damocles_core::{CommD, testing::fake_proof};
use fil_actor_miner_state::v18::{
    DeclareFaultsParams, DeclareFaultsRecoveredParams, FaultDeclaration, PieceActivationManifest,
    PreCommitSectorBatchParams2, RecoveryDeclaration,
};
use fvm_ipld_bitfield::BitField;
use fvm_shared::{econ::TokenAmount, piece::PaddedPieceSize};
use serde_json::json;
use sha2::{Digest, Sha256};

fn set(number: u64) -> BitField {
    BitField::try_from_bits([number]).unwrap()
}

#[test]
fn a_sector_is_committed_proven_lost_and_recovered() {
    let net = Net::with_miner();
    let sector = net.active_sector(0);
    assert_eq!(net.power(), 0, "there is no power before the first WindowPoSt");
    let (deadline, partition) = net.location(&sector);

    let open = net.open(deadline);
    let landed = net.post(&open, partition, &[&sector]);
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    assert_eq!(net.power(), 2048);
    let again = net.post(&open, partition, &[&sector]);
    refused(&again, 16, "partition already proven");

    // A whole period without a proof.
    net.devnet.grow_to(open.close + 2880 + 1).unwrap();
    net.devnet.mine(1).unwrap();
    assert_eq!(net.power(), 0);
    assert_eq!(net.faults(), json!([0, 1]));
    let idle = net.call("StateMinerPartitions", json!([net.miner.to_string(), deadline, []]));
    assert_eq!(idle[0]["FaultySectors"], json!([0, 1]));

    let recover =
        DeclareFaultsRecoveredParams { recoveries: vec![RecoveryDeclaration { deadline, partition, sectors: set(0) }] };
    let landed = net.call_miner(11, &recover, TokenAmount::from_whole(1));
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    let recovering = net.call("StateMinerRecoveries", json!([net.miner.to_string(), []]));
    assert_eq!(recovering, json!([0, 1]));
    assert_eq!(net.power(), 0, "a recovery counts only once it is proven");

    let open = net.open(deadline);
    let landed = net.post(&open, partition, &[&sector]);
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    assert_eq!(net.power(), 2048);
    assert_eq!(net.faults(), json!([0]));
}

#[test]
fn a_wrong_seal_proof_is_refused_and_the_sector_stays_pre_committed() {
    let net = Net::with_miner();
    let sector = net.sector(3);
    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0);
    net.devnet.mine(11).unwrap();
    let mut proof = fake_proof::seal(&net.seal_statement(&sector));
    proof[0] ^= 1;
    let landed = net.call_miner(34, &net.prove_params(&sector, proof.clone()), TokenAmount::from_whole(1));
    refused(&landed, 16, "invalid proof");
    let mut lenient = net.prove_params(&sector, proof);
    lenient.require_activation_success = false;
    refused(&net.call_miner(34, &lenient, TokenAmount::from_whole(1)), 16, "no valid proofs");
    net.devnet.mine(1).unwrap();
    assert!(net.call("StateSectorGetInfo", json!([net.miner.to_string(), 3, []])).is_null());
    assert_eq!(net.prove(&sector).receipt.exit_code.value(), 0, "the right proof still lands");
}

#[test]
fn a_proof_before_the_seed_is_too_early() {
    let net = Net::with_miner();
    let sector = net.sector(3);
    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0);
    net.devnet.mine(2).unwrap();
    let params = net.prove_params(&sector, vec![0; 192]);
    refused(&net.call_miner(34, &params, TokenAmount::from_whole(1)), 18, "too early to prove sector 3");
}

#[test]
fn a_sector_with_a_piece_is_bound_to_its_data() {
    let net = Net::with_miner();
    let piece = [9; 32];
    // Four pieces of 512 bytes, the last three of them zeros.
    let zero = |levels: usize| {
        let mut node = [0_u8; 32];
        for _ in 0..levels {
            node = hash(&node, &node);
        }
        node
    };
    let comm_d = CommD(hash(&hash(&piece, &zero(4)), &zero(5)));
    let manifest = PieceActivationManifest {
        cid: CommD(piece).cid(),
        size: PaddedPieceSize(512),
        verified_allocation_key: None,
        notify: vec![],
    };
    let sector = Sector { comm_d: Some(comm_d), pieces: vec![manifest], ..net.sector(5) };
    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0);
    net.devnet.mine(11).unwrap();
    let without = Sector { pieces: vec![], comm_d: Some(comm_d), ..net.sector(5) };
    refused(&net.prove(&without), 16, "unsealed CID does not match data commitment");
    let landed = net.prove(&sector);
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    let info = net.call("StateSectorGetInfo", json!([net.miner.to_string(), 5, []]));
    assert_ne!(info["DealWeight"], "0");
}

fn hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut out: [u8; 32] = Sha256::new().chain_update(left).chain_update(right).finalize().into();
    out[31] &= 0x3f;
    out
}

#[test]
fn wrong_posts_are_refused() {
    let net = Net::with_miner();
    let sector = net.active_sector(0);
    let (deadline, partition) = net.location(&sector);
    let open = net.open(deadline);
    let good = fake_proof::window_post(&net.post_statement(&open, &[&sector]));

    let mut flipped = good.clone();
    flipped[7] ^= 0x10;
    let none = TokenAmount::default();
    refused(
        &net.call_miner(5, &net.post_params(&open, partition, flipped), none.clone()),
        16,
        "invalid post was submitted",
    );

    let mut other = net.post_params(&open, partition, good.clone());
    other.deadline = (deadline + 1) % 48;
    let text = format!("invalid deadline {} at epoch {}, expected {deadline}", other.deadline, net.epoch() + 1);
    refused(&net.call_miner(5, &other, none.clone()), 16, &text);

    let mut stale = net.post_params(&open, partition, good.clone());
    stale.chain_commit_epoch = open.challenge - 1;
    refused(&net.call_miner(5, &stale, none.clone()), 16, "expected chain commit epoch");

    let mut forged = net.post_params(&open, partition, good.clone());
    forged.chain_commit_rand.0[0] ^= 1;
    refused(&net.call_miner(5, &forged, none.clone()), 16, "post commit randomness mismatched");

    refused(&net.call_miner(5, &net.post_params(&open, 7, good.clone()), none.clone()), 17, "no such partition 7");

    let from_owner = net.message(&net.owner, net.miner, 5, &net.post_params(&open, partition, good), none);
    let landed = net.land(&net.owner, from_owner);
    assert_eq!(landed.receipt.exit_code.value(), 0, "the owner may send it too: {}", landed.error);
}

#[test]
fn only_controllers_may_call() {
    let net = Net::with_miner();
    let stranger = Key::secp(55);
    let fund = net.message(&net.owner, stranger.address(), 0, &(), TokenAmount::from_whole(5));
    assert_eq!(net.land(&net.owner, fund).receipt.exit_code.value(), 0);
    let params = PreCommitSectorBatchParams2 { sectors: vec![net.pre_commit_info(&net.sector(1))] };
    let message = net.message(&stranger, net.miner, 28, &params, TokenAmount::from_whole(1));
    refused(&net.land(&stranger, message), 18, "is not one of supported");
    let missing = net.prove_params(&net.sector(1), vec![0; 192]);
    refused(&net.call_miner(34, &missing, TokenAmount::default()), 17, "sector 1 not found");
}

#[test]
fn a_declared_fault_costs_power_at_once() {
    let net = Net::with_miner();
    let sector = net.active_sector(0);
    let (deadline, partition) = net.location(&sector);
    let open = net.open(deadline);
    assert_eq!(net.post(&open, partition, &[&sector]).receipt.exit_code.value(), 0);
    let declare = DeclareFaultsParams { faults: vec![FaultDeclaration { deadline, partition, sectors: set(0) }] };
    let none = TokenAmount::default();
    refused(&net.call_miner(10, &declare, none.clone()), 16, "late fault or recovery declaration");
    net.devnet.grow_to(open.close + 1).unwrap();
    let landed = net.call_miner(10, &declare, none.clone());
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    assert_eq!((net.power(), net.faults()), (0, json!([0, 1])));
    let nobody = DeclareFaultsParams { faults: vec![FaultDeclaration { deadline: 48, partition, sectors: set(0) }] };
    refused(&net.call_miner(10, &nobody, none.clone()), 16, "deadline");
    let unknown = DeclareFaultsParams { faults: vec![FaultDeclaration { deadline, partition, sectors: set(9) }] };
    refused(&net.call_miner(10, &unknown, none), 16, "not all sectors are assigned to the partition");
}

#[test]
fn pre_commits_are_checked() {
    let net = Net::with_miner();
    let attempt = |change: fn(&mut fil_actor_miner_state::v18::SectorPreCommitInfo)| {
        let mut info = net.pre_commit_info(&net.sector(1));
        change(&mut info);
        net.call_miner(28, &PreCommitSectorBatchParams2 { sectors: vec![info] }, TokenAmount::from_whole(1))
    };
    refused(&attempt(|i| i.seal_rand_epoch += 10_000), 16, "must be before now");
    refused(&attempt(|i| i.seal_rand_epoch -= 10_000), 16, "too old");
    refused(&attempt(|i| i.expiration = i.seal_rand_epoch + 180 * 2880), 16, "total sector lifetime");
    refused(&attempt(|i| i.expiration += 10_000_000), 16, "cannot be more than");
    refused(&attempt(|i| i.sealed_cid = CommD([1; 32]).cid()), 16, "sealed CID had wrong prefix");
    refused(&attempt(|i| i.seal_proof = 0.into()), 16, "unsupported seal proof type");
    refused(&attempt(|i| i.seal_proof = 7.into()), 16, "must match miner Window PoSt proof type");
    let empty = PreCommitSectorBatchParams2 { sectors: vec![] };
    refused(&net.call_miner(28, &empty, TokenAmount::default()), 16, "batch empty");
    assert_eq!(attempt(|_| {}).receipt.exit_code.value(), 0);
    refused(&attempt(|_| {}), 16, "already allocated");
    refused(&net.call_miner(99, &empty, TokenAmount::default()), 22, "invalid method: 99");
}

#[test]
fn an_expired_pre_commit_loses_its_deposit() {
    let net = Net::with_miner();
    let sector = net.sector(1);
    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0);
    net.devnet.mine(11).unwrap();
    let proof = fake_proof::seal(&net.seal_statement(&sector));
    net.devnet.grow_to(net.epoch() + 30 * 2880).unwrap();
    let late = net.call_miner(34, &net.prove_params(&sector, proof), TokenAmount::from_whole(1));
    refused(&late, 16, "invalid pre-commit");
    net.devnet.grow_to(net.epoch() + 2 * 2880).unwrap();
    net.devnet.mine(1).unwrap();
    let info = net.call("StateSectorPreCommitInfo", json!([net.miner.to_string(), 1, []]));
    assert!(info.is_null());
    assert_eq!(net.devnet.check().unwrap(), Vec::<String>::new());
    assert_eq!(net.call("StateMinerSectorAllocated", json!([net.miner.to_string(), 1, []])), json!(true));
}

#[test]
fn several_sectors_share_partitions() {
    let net = Net::with_miner();
    let sectors: Vec<Sector> = (0..5).map(|n| net.active_sector(n)).collect();
    let mut places: Vec<(u64, u64)> = sectors.iter().map(|s| net.location(s)).collect();
    let (deadline, partition) = places[0];
    places.dedup();
    assert!(places.len() >= 3, "2 KiB partitions hold two sectors: {places:?}");
    let here: Vec<&Sector> = sectors.iter().filter(|s| net.location(s) == (deadline, partition)).collect();
    let open = net.open(deadline);
    let landed = net.post(&open, partition, &here);
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
}

#[test]
fn twenty_thousand_epochs_pass_with_cron_in_each() {
    let net = Net::with_miner();
    let sector = net.active_sector(0);
    let (deadline, partition) = net.location(&sector);
    let open = net.open(deadline);
    assert_eq!(net.post(&open, partition, &[&sector]).receipt.exit_code.value(), 0);
    net.devnet.grow_to(net.epoch() + 20_000).unwrap();
    net.devnet.mine(1).unwrap();
    assert_eq!((net.power(), net.faults()), (0, json!([0, 1])));
    let debt = net.call("StateMinerAvailableBalance", json!([net.miner.to_string(), []]));
    assert!(debt.as_str().unwrap().parse::<i128>().unwrap() > 0, "the fees come out of what the miner holds");
}

#[test]
fn skipping_stops_at_the_challenge_and_never_over_an_open_window() {
    let net = Net::with_miner();
    let idle = net.devnet.advance_to(net.epoch() + 50).unwrap();
    assert_eq!(idle.epoch.0, net.epoch(), "nothing to prove: straight to the limit");
    let sector = net.active_sector(0);
    let (deadline, partition) = net.location(&sector);
    let reached = net.devnet.advance_to(net.epoch() + 10_000).unwrap().epoch.0;
    let info = net.deadline();
    let opens = info.period_start + i64::try_from(deadline).unwrap() * 60;
    assert_eq!((opens - 20 - reached).rem_euclid(2880), 0, "{reached} is the challenge of {info:?}");
    assert_eq!(net.devnet.advance_to(reached + 10_000).unwrap().epoch.0, reached, "the window is still to be proven");
    let open = net.open(deadline);
    assert_eq!(net.post(&open, partition, &[&sector]).receipt.exit_code.value(), 0);
    let next = net.devnet.advance_to(reached + 10_000).unwrap().epoch.0;
    assert_eq!(next, reached + 2880);
    let seen = net.call("StateMinerDeadlines", json!([net.miner.to_string(), []]));
    let at = usize::try_from(deadline).unwrap();
    assert_eq!(seen[at]["PostSubmissions"], json!([0]), "the last window's proof is seen to be over");

    // A faulty deadline has nothing to prove; before its challenge there is a stop at which recoveries can be declared:
    // two windows before the cut-off, which lies 50 epochs before the challenge.
    net.devnet.grow_to(next + 81).unwrap();
    let room = net.devnet.advance_to(reached + 20_000).unwrap().epoch.0;
    assert_eq!(room, next + 2880 - 50 - 120);
    let challenged = net.devnet.advance_to(reached + 20_000).unwrap().epoch.0;
    assert_eq!(challenged, next + 2880);
    let room = net.devnet.advance_to(reached + 20_000).unwrap().epoch.0;
    assert_eq!(room, challenged + 2880 - 50 - 120);
    assert_eq!(net.devnet.advance_to(reached + 20_000).unwrap().epoch.0, challenged + 2880);
}
