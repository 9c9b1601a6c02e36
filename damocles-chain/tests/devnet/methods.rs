//! Each method of a miner, with its wrong turns and their exit codes.

use crate::{
    harness::refused,
    sim::{Sim, bits, comm_r, fil, short},
};
use damocles_chain::devnet::PolicyParameters;
use damocles_core::{PoStProofType, SectorSize};
use fil_actor_miner_state::v18::{
    ChangeBeneficiaryParams, ChangeMultiaddrsParams, ChangeOwnerAddressParams, ChangePeerIDParams,
    ChangeWorkerAddressParams, CompactPartitionsParams, CompactSectorNumbersParams, DisputeWindowedPoStParams,
    ExpirationExtension2, ExtendSectorExpiration2Params, GetBeneficiaryReturn, GetControlAddressesReturn,
    ProveCommitSectors3Return, ProveCommitSectorsNIReturn, SectorClaim, Sectors, State, TerminateSectorsParams,
    TerminateSectorsReturn, TerminationDeclaration, WithdrawBalanceParams, WithdrawBalanceReturn,
};
use fvm_ipld_encoding::BytesDe;
use fvm_shared::{address::Address, econ::TokenAmount};
use num_traits::Zero;
use serde_json::json;

const OWNER: u64 = 1000;
const WORKER: u64 = 1001;
const OTHER: u64 = 1002;
const OTHER_BLS: u64 = 1003;

fn none() -> TokenAmount {
    TokenAmount::zero()
}

fn sim(parameters: PolicyParameters) -> (Sim, u64) {
    let sim = Sim::new(parameters, 4, fil(100_000));
    let miner = sim.create_miner(OWNER, WORKER, fil(100));
    (sim, miner)
}

fn terminate(deadline: u64, partition: u64, numbers: &[u64]) -> TerminateSectorsParams {
    TerminateSectorsParams {
        terminations: vec![TerminationDeclaration { deadline, partition, sectors: bits(numbers.iter().copied()) }],
    }
}

#[test]
fn addresses_change_as_the_owner_says() {
    let (sim, miner) = sim(short());
    let to = |worker: u64, control: Vec<u64>| ChangeWorkerAddressParams {
        new_worker: Address::new_id(worker),
        new_control_addresses: control.into_iter().map(Address::new_id).collect(),
    };
    refused(&sim.land(WORKER, miner, 3, &to(OTHER_BLS, vec![]), none()), 18, "not one of supported");
    refused(&sim.land(OWNER, miner, 3, &to(OTHER, vec![]), none()), 16, "must have BLS pubkey");
    refused(&sim.land(OWNER, miner, 3, &to(WORKER, vec![5000; 11]), none()), 16, "control addresses length 11");
    sim.good(OWNER, miner, 3, &to(OTHER_BLS, vec![OTHER]), none());
    let info = sim.info(miner);
    assert_eq!((info.worker, info.control_addresses), (Address::new_id(WORKER), vec![Address::new_id(OTHER)]));
    let all: GetControlAddressesReturn =
        sim.good(OTHER, miner, 2, &(), none()).receipt.return_data.deserialize().unwrap();
    assert_eq!((all.owner, all.control_addresses.len()), (Address::new_id(OWNER), 1));
    // Confirmed too early, it changes nothing; later it does.
    sim.good(OWNER, miner, 21, &(), none());
    assert_eq!(sim.info(miner).worker, Address::new_id(WORKER));
    sim.devnet.mine(50).unwrap();
    refused(&sim.land(WORKER, miner, 21, &(), none()), 18, "not one of supported");
    sim.good(OWNER, miner, 21, &(), none());
    assert_eq!(sim.info(miner).worker, Address::new_id(OTHER_BLS));

    let peer = |len: usize| ChangePeerIDParams { new_id: vec![3; len] };
    refused(&sim.land(OTHER, miner, 4, &peer(129), none()), 16, "peer ID size of 129");
    sim.good(OTHER, miner, 4, &peer(38), none());
    let addresses =
        |of: Vec<Vec<u8>>| ChangeMultiaddrsParams { new_multi_addrs: of.into_iter().map(BytesDe).collect() };
    refused(&sim.land(OTHER, miner, 18, &addresses(vec![vec![]]), none()), 16, "empty multiaddr");
    refused(&sim.land(OTHER, miner, 18, &addresses(vec![vec![1; 2000]]), none()), 16, "multiaddr size of 2000");
    refused(&sim.land(WORKER, miner, 18, &addresses(vec![]), none()), 18, "not one of supported");
    sim.good(OTHER, miner, 18, &addresses(vec![vec![4, 127, 0, 0, 1, 6, 1, 2]]), none());
    let info = sim.info(miner);
    assert_eq!((info.peer_id.len(), info.multi_address.len()), (38, 1));
    let told = |sim: &Sim| sim.call("StateMinerInfo", json!([format!("t0{miner}"), []]));
    assert!(told(&sim)["PeerId"].is_null(), "38 threes are no multihash");
    let mut key = vec![0, 36, 8, 1, 18, 32];
    key.extend([0; 32]);
    sim.good(OTHER, miner, 4, &ChangePeerIDParams { new_id: key }, none());
    assert_eq!(told(&sim)["PeerId"], "12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw");
    sim.check();
}

#[test]
fn a_new_owner_agrees_first() {
    let (sim, miner) = sim(short());
    let to = |id: u64| ChangeOwnerAddressParams { new_owner: Address::new_id(id) };
    refused(&sim.land(WORKER, miner, 23, &to(OTHER), none()), 18, "not one of supported");
    let robust = ChangeOwnerAddressParams { new_owner: sim.keys[&OTHER].address() };
    refused(&sim.land(OWNER, miner, 23, &robust, none()), 16, "must be an ID address");
    sim.good(OWNER, miner, 23, &to(OTHER), none());
    assert_eq!(sim.info(miner).pending_owner_address, Some(Address::new_id(OTHER)));
    refused(&sim.land(OTHER, miner, 23, &to(OWNER), none()), 16, "expected confirmation");
    sim.good(OTHER, miner, 23, &to(OTHER), none());
    let info = sim.info(miner);
    assert_eq!((info.owner, info.pending_owner_address), (Address::new_id(OTHER), None));
    assert_eq!(info.beneficiary, info.owner, "a beneficiary that was the owner follows");
}

#[test]
fn a_beneficiary_gets_what_its_quota_allows() {
    let (sim, miner) = sim(short());
    let to = |id: u64, quota: i64, expiration: i64| ChangeBeneficiaryParams {
        new_beneficiary: Address::new_id(id),
        new_quota: fil(quota),
        new_expiration: expiration,
    };
    refused(&sim.land(OTHER, miner, 30, &to(OTHER, 5, 9000), none()), 18, "No changeBeneficiary proposal");
    refused(&sim.land(OWNER, miner, 30, &to(OTHER, 0, 9000), none()), 16, "must bigger than zero");
    refused(&sim.land(OWNER, miner, 30, &to(OWNER, 1, 0), none()), 16, "must be zero");
    sim.good(OWNER, miner, 30, &to(OTHER, 5, 9000), none());
    refused(&sim.land(OTHER, miner, 30, &to(OTHER, 6, 9000), none()), 16, "quota must be equal");
    refused(&sim.land(WORKER, miner, 30, &to(OTHER, 5, 9000), none()), 18, "neither proposal beneficiary");
    let asked: GetBeneficiaryReturn =
        sim.good(WORKER, miner, 31, &(), none()).receipt.return_data.deserialize().unwrap();
    assert!(asked.proposed.is_some_and(|p| p.approved_by_beneficiary && !p.approved_by_nominee));
    let told = sim.call("StateMinerInfo", json!([format!("t0{miner}"), []]))["PendingBeneficiaryTerm"].clone();
    assert_eq!(
        (told["NewQuota"].clone(), told["ApprovedByNominee"].clone()),
        (json!(fil(5).atto().to_string()), json!(false))
    );
    sim.good(OTHER, miner, 30, &to(OTHER, 5, 9000), none());
    assert_eq!(sim.info(miner).beneficiary, Address::new_id(OTHER));

    let withdraw = |amount: i64| WithdrawBalanceParams { amount_requested: fil(amount) };
    refused(&sim.land(WORKER, miner, 16, &withdraw(1), none()), 18, "not one of supported");
    refused(&sim.land(OWNER, miner, 16, &withdraw(-1), none()), 16, "negative fund");
    let before = sim.balance(OTHER);
    let landed = sim.good(OWNER, miner, 16, &withdraw(50), none());
    let got: WithdrawBalanceReturn = landed.receipt.return_data.deserialize().unwrap();
    assert_eq!((got.amount_withdrawn, sim.balance(OTHER) - before), (fil(5), fil(5)));
    refused(&sim.land(OWNER, miner, 16, &withdraw(1), none()), 18, "quota of");
    sim.check();
}

#[test]
fn aggregates_prove_many_sectors_at_once() {
    let (sim, miner) = sim(short());
    let numbers = [0, 1, 2, 3, 4];
    sim.good(WORKER, miner, 28, &sim.pre_commit_params(miner, &numbers), fil(1));
    sim.devnet.mine(12).unwrap();
    let few = sim.prove_params(miner, &numbers[..3], true);
    refused(&sim.land(WORKER, miner, 34, &few, none()), 16, "too few sectors");
    let good = sim.prove_params(miner, &numbers, true);
    let mut wrong = good.clone();
    wrong.aggregate_proof = vec![9; 192].into();
    refused(&sim.land(WORKER, miner, 34, &wrong, none()), 16, "aggregate seal verify failed");
    let mut swapped = good.clone();
    swapped.sector_activations.swap(0, 1);
    refused(&sim.land(WORKER, miner, 34, &swapped, none()), 16, "aggregate seal verify failed");
    let mut untyped = good.clone();
    untyped.aggregate_proof_type = None;
    refused(&sim.land(WORKER, miner, 34, &untyped, none()), 16, "SnarkPackV2");
    let mut both = good.clone();
    both.sector_proofs = vec![vec![1].into()];
    refused(&sim.land(WORKER, miner, 34, &both, none()), 16, "exactly one of");
    let landed = sim.good(WORKER, miner, 34, &good, none());
    let results: ProveCommitSectors3Return = landed.receipt.return_data.deserialize().unwrap();
    assert_eq!(results.activation_results.success_count, 5);
    refused(&sim.land(WORKER, miner, 34, &good, none()), 17, "not found");
    sim.check();
}

#[test]
fn sectors_without_an_interaction_come_in_one_message() {
    let (sim, miner) = sim(short());
    let far = (sim.deadline(&sim.state(miner)).index + 10) % 48;
    let open = sim.deadline(&sim.state(miner)).index;
    let until = sim.epoch() + 2000;
    let now = sim.ni_params(miner, &[1], until, open);
    refused(&sim.land(WORKER, miner, 36, &now, fil(1)), 18, "must not be the current or next deadline");
    let short_life = sim.ni_params(miner, &[1], sim.epoch() + 1000, far);
    refused(&sim.land(WORKER, miner, 36, &short_life, fil(1)), 16, "invalid NI commit 0");
    refused(&sim.land(WORKER, miner, 36, &sim.ni_params(miner, &[], until, far), fil(1)), 16, "too few sectors");
    refused(&sim.land(WORKER, miner, 36, &sim.ni_params(miner, &[1; 66], until, far), fil(1)), 16, "too many sectors");
    refused(&sim.land(WORKER, miner, 36, &sim.ni_params(miner, &[1, 1], until, far), fil(1)), 16, "duplicate");
    refused(&sim.land(WORKER, miner, 36, &sim.ni_params(miner, &[1], until, 48), fil(1)), 16, "index 48 invalid");
    let mut wrong = sim.ni_params(miner, &[1], until, far);
    wrong.aggregate_proof = vec![1; 192].into();
    refused(&sim.land(WORKER, miner, 36, &wrong, fil(1)), 16, "aggregate seal verify failed");

    // One that is wrong in its terms is in the proof and is not activated.
    let mut mixed = sim.ni_params(miner, &[1, 2, 3], until, far);
    mixed.require_activation_success = false;
    mixed.sectors[1].sealer_id = 7;
    let landed = sim.good(WORKER, miner, 36, &mixed, fil(1));
    let results: ProveCommitSectorsNIReturn = landed.receipt.return_data.deserialize().unwrap();
    let codes: Vec<u32> = results.activation_results.codes().iter().map(|c| c.value()).collect();
    assert_eq!(codes, [0, 16, 0]);
    assert_eq!(sim.find(miner, 3).0, far);
    let again = sim.ni_params(miner, &[3], until, far);
    refused(&sim.land(WORKER, miner, 36, &again, fil(1)), 16, "already allocated");
    let mut above = sim.ni_params(miner, &[1 << 63, 1 << 63], until, far);
    above.require_activation_success = false;
    refused(&sim.land(WORKER, miner, 36, &above, fil(1)), 16, "duplicate sector number");
    let mut highest = sim.ni_params(miner, &[u64::MAX, 4], until, far);
    highest.require_activation_success = false;
    refused(&sim.land(WORKER, miner, 36, &highest, fil(1)), 16, "sector number 18446744073709551615");
    assert_eq!(sim.power(miner), 0);
    let pledge = sim.state(miner).initial_pledge;
    assert_eq!(pledge, sim.sector(miner, 1).initial_pledge * 2);
    // They come to their end in time: proven until then, they never cost more than the daily fee, and the last end of their
    // deadline costs nothing.
    while sim.live(miner, far) != Vec::<u64>::new() {
        assert_eq!((sim.epoch() < until + 480, &sim.state(miner).initial_pledge), (true, &pledge));
        let cost = sim.prove_to_the_end(miner, WORKER, far);
        let live = sim.live(miner, far).len() as u64;
        assert_eq!(sim.power(miner), live * 2048, "nothing is faulty");
        assert_eq!(cost, sim.sector(miner, 1).daily_fee * live);
    }
    assert!(sim.epoch() > until, "{}", sim.epoch());
    let state = sim.state(miner);
    assert_eq!((sim.power(miner), state.initial_pledge, state.fee_debt), (0, none(), none()));
    sim.check();
}

#[test]
fn sectors_that_are_terminated_free_their_pledge() {
    let (sim, miner) = sim(short());
    let deadline = sim.active(miner, WORKER, &[1, 2, 3]);
    let (_, partition) = sim.find(miner, 1);
    let open = terminate(deadline, partition, &[1]);
    refused(&sim.land(WORKER, miner, 9, &open, none()), 16, "immutable deadline");
    sim.devnet.mine(15).unwrap();
    refused(&sim.land(OTHER, miner, 9, &open, none()), 18, "not one of supported");
    refused(&sim.land(WORKER, miner, 9, &terminate(99, 0, &[1]), none()), 16, "deadline 99");
    refused(&sim.land(WORKER, miner, 9, &terminate(deadline, 9, &[1]), none()), 17, "partition 9");
    let pledge = sim.state(miner).initial_pledge;
    let landed = sim.good(WORKER, miner, 9, &open, none());
    let done: TerminateSectorsReturn = landed.receipt.return_data.deserialize().unwrap();
    assert!(done.done);
    assert_eq!(sim.power(miner), 2 * 2048);
    let state = sim.state(miner);
    assert_eq!(state.initial_pledge, pledge - sim.sector(miner, 1).initial_pledge);
    assert!(state.early_terminations.is_empty());
    sim.check();
}

#[test]
fn more_terminations_than_one_call_settles_are_left_to_cron() {
    let (sim, miner) = sim(PolicyParameters { addressed_sectors_max: 6, ..short() });
    let numbers: Vec<u64> = (0..16).collect();
    let deadline = sim.active(miner, WORKER, &numbers);
    sim.devnet.mine(15).unwrap();
    let by_partition = |sim: &Sim| -> Vec<(u64, Vec<u64>)> {
        let state = sim.state(miner);
        sim.partitions(&state, deadline).into_iter().map(|(n, p)| (n, p.live_sectors().iter().collect())).collect()
    };
    let all = by_partition(&sim);
    let too_many = TerminateSectorsParams {
        terminations: all
            .iter()
            .map(|(partition, numbers)| TerminationDeclaration {
                deadline,
                partition: *partition,
                sectors: bits(numbers.iter().copied()),
            })
            .collect(),
    };
    refused(&sim.land(WORKER, miner, 9, &too_many, none()), 16, "cannot process requested parameters");
    // Faulty for too long, they all end at once: more than the cron of one epoch settles.
    let withdraw = WithdrawBalanceParams { amount_requested: fil(1) };
    let mut waited = 0;
    let end = sim.epoch() + 4 * 480;
    while sim.state(miner).early_terminations.is_empty() && sim.epoch() < end {
        sim.devnet.mine(1).unwrap();
    }
    refused(&sim.land(OWNER, miner, 16, &withdraw, none()), 18, "deadlines have terminated sectors");
    while !sim.state(miner).early_terminations.is_empty() {
        sim.check();
        sim.devnet.mine(1).unwrap();
        waited += 1;
    }
    assert!(waited < 10, "a few epochs settle them: {waited}");
    assert_eq!((sim.power(miner), sim.state(miner).initial_pledge), (0, none()));
    sim.check();
}

#[test]
fn sectors_live_longer_if_it_is_asked_for() {
    let (sim, miner) = sim(short());
    let deadline = sim.active(miner, WORKER, &[1, 2]);
    let (_, partition) = sim.find(miner, 1);
    let before = sim.sector(miner, 1);
    let to = |number: u64, expiration: i64, claims: Vec<SectorClaim>| ExtendSectorExpiration2Params {
        extensions: vec![ExpirationExtension2 {
            deadline,
            partition,
            sectors: bits([number]),
            sectors_with_claims: claims,
            new_expiration: expiration,
        }],
    };
    refused(&sim.land(OTHER, miner, 32, &to(1, 9000, vec![]), none()), 18, "not one of supported");
    let less = to(1, before.expiration - 1, vec![]);
    refused(&sim.land(WORKER, miner, 32, &less, none()), 16, "cannot reduce sector 1");
    let more = to(1, sim.epoch() + 1278 * 2880 + 10, vec![]);
    refused(&sim.land(WORKER, miner, 32, &more, none()), 16, "cannot be more than");
    let claim = SectorClaim { sector_number: 1, maintain_claims: vec![4], drop_claims: vec![] };
    refused(&sim.land(WORKER, miner, 32, &to(1, before.expiration + 9, vec![claim]), none()), 16, "invalid claims");
    refused(&sim.land(WORKER, miner, 32, &to(9, before.expiration + 9, vec![]), none()), 17, "sector not found");
    sim.good(WORKER, miner, 32, &to(1, before.expiration + 5000, vec![]), none());
    let after = sim.sector(miner, 1);
    assert_eq!(after.expiration, before.expiration + 5000);
    assert!(after.power_base_epoch > before.power_base_epoch && after.activation == before.activation);
    assert_eq!(sim.power(miner), 2 * 2048);
    sim.check();
    while sim.epoch() < before.expiration + 500 {
        sim.prove_to_the_end(miner, WORKER, deadline);
    }
    assert_eq!((sim.live(miner, deadline), sim.power(miner)), (vec![1], 2048), "the other one is gone");
    assert_eq!(sim.state(miner).initial_pledge, after.initial_pledge);
    sim.check();
}

#[test]
fn an_empty_sector_takes_data() {
    let (sim, miner) = sim(short());
    let deadline = sim.active(miner, WORKER, &[1, 2]);
    refused(&sim.land(WORKER, miner, 35, &sim.update_params(miner, 1), none()), 16, "immutable deadline");
    sim.devnet.mine(15).unwrap();
    let good = sim.update_params(miner, 1);
    let mut wrong = good.clone();
    wrong.sector_proofs = vec![vec![1; 192].into()];
    refused(&sim.land(WORKER, miner, 35, &wrong, none()), 16, "invalid proof for sector 1");
    let mut kind = good.clone();
    kind.update_proofs_type = fvm_shared::sector::RegisteredUpdateProof::StackedDRG32GiBV1;
    refused(&sim.land(WORKER, miner, 35, &kind, none()), 16, "expected proof type");
    let mut aggregate = good.clone();
    aggregate.sector_proofs = vec![];
    aggregate.aggregate_proof = vec![1].into();
    aggregate.aggregate_proof_type = Some(fvm_shared::sector::RegisteredAggregateProof::SnarkPackV2);
    refused(&sim.land(WORKER, miner, 35, &aggregate, none()), 16, "not yet supported");
    sim.good(WORKER, miner, 35, &good, none());
    let sector = sim.sector(miner, 1);
    assert_eq!(sector.sealed_cid, comm_r(miner, 1, 1).cid());
    assert_eq!(sector.sector_key_cid, Some(comm_r(miner, 1, 0).cid()));
    assert!(!sector.deal_weight.is_zero());
    let mut again = sim.update_params(miner, 2);
    again.sector_updates[0].sector = 1;
    refused(&sim.land(WORKER, miner, 35, &again, none()), 16, "non-zero data");
    // The new replica is what is proven from now on.
    sim.prove_deadline(miner, WORKER, deadline);
    assert_eq!(sim.power(miner), 2 * 2048);
    sim.check();
}

#[test]
fn partitions_and_numbers_are_compacted() {
    let (sim, miner) = sim(short());
    let deadline = sim.active(miner, WORKER, &[1, 2, 3, 4, 5]);
    let compact =
        |partitions: &[u64]| CompactPartitionsParams { deadline, partitions: bits(partitions.iter().copied()) };
    refused(&sim.land(WORKER, miner, 19, &compact(&[0]), none()), 18, "cannot compact deadline");
    sim.devnet.mine(15).unwrap();
    let (_, first) = sim.find(miner, 1);
    sim.good(WORKER, miner, 9, &terminate(deadline, first, &[1]), none());
    refused(&sim.land(WORKER, miner, 19, &compact(&[0, 1]), none()), 18, "cannot compact deadline");
    sim.devnet.mine(310).unwrap();
    refused(&sim.land(WORKER, miner, 19, &compact(&[40]), none()), 16, "40");
    sim.good(WORKER, miner, 19, &compact(&[0, 1, 2]), none());
    let state = sim.state(miner);
    let partitions = sim.partitions(&state, deadline);
    assert_eq!(partitions.iter().map(|(_, p)| p.sectors.len()).collect::<Vec<_>>(), [2, 2]);
    assert!(Sectors::load(&sim.store(), &state.sectors).unwrap().get(1).unwrap().is_none());
    sim.check();

    let mask = |numbers: std::ops::Range<u64>| CompactSectorNumbersParams { mask_sector_numbers: bits(numbers) };
    refused(&sim.land(OTHER, miner, 20, &mask(10..20), none()), 18, "not one of supported");
    refused(&sim.land(WORKER, miner, 20, &mask(0..0), none()), 16, "invalid mask");
    sim.good(WORKER, miner, 20, &mask(0..20), none());
    let used = sim.pre_commit_params(miner, &[15]);
    refused(&sim.land(WORKER, miner, 28, &used, fil(1)), 16, "already allocated");
    sim.check();
}

#[test]
fn a_proof_that_was_taken_on_trust_is_disputed() {
    let (sim, miner) = sim(PolicyParameters { optimistic_post: true, ..short() });
    let deadline = sim.active(miner, WORKER, &[1, 2]);
    let dispute = |index: u64| DisputeWindowedPoStParams { deadline, post_index: index };
    refused(&sim.land(OTHER, miner, 24, &dispute(0), none()), 18, "during the dispute window");
    sim.devnet.mine(15).unwrap();
    refused(&sim.land(OTHER, miner, 24, &dispute(0), none()), 16, "failed to dispute valid post");
    refused(&sim.land(OTHER, miner, 24, &dispute(7), none()), 16, "proof 7 not found");
    refused(&sim.land(OTHER, miner, 24, &DisputeWindowedPoStParams { deadline: 48, post_index: 0 }, none()), 16, "48");
    sim.open(miner, deadline);
    let mut posts = sim.posts(miner, PoStProofType::window(SectorSize::KiB2), &mut |_| false);
    posts[0].proofs[0].proof_bytes[5] ^= 1;
    sim.good(WORKER, miner, 5, &posts[0], none());
    sim.devnet.mine(15).unwrap();
    assert_eq!(sim.power(miner), 2 * 2048, "on trust");
    let before = sim.balance(OTHER);
    sim.good(OTHER, miner, 24, &dispute(0), none());
    let won = sim.balance(OTHER) - before;
    assert!(won > fil(3) && won <= fil(4), "{won}");
    assert_eq!(sim.power(miner), 0);
    refused(&sim.land(OTHER, miner, 24, &dispute(0), none()), 16, "proof 0 not found");
    sim.check();
    // Who recovers is not trusted.
    let recovered = fil_actor_miner_state::v18::DeclareFaultsRecoveredParams {
        recoveries: vec![fil_actor_miner_state::v18::RecoveryDeclaration {
            deadline,
            partition: sim.find(miner, 1).1,
            sectors: bits([1, 2]),
        }],
    };
    sim.good(WORKER, miner, 11, &recovered, none());
    sim.open(miner, deadline);
    let mut posts = sim.posts(miner, PoStProofType::window(SectorSize::KiB2), &mut |_| false);
    posts[0].proofs[0].proof_bytes[5] ^= 1;
    refused(&sim.land(WORKER, miner, 5, &posts[0], none()), 16, "invalid post");
    sim.check();
}

#[test]
fn debts_are_paid_before_anything_else() {
    let (sim, miner) = sim(PolicyParameters { optimistic_post: true, ..short() });
    let deadline = sim.active(miner, WORKER, &[1, 2]);
    sim.open(miner, deadline);
    let mut posts = sim.posts(miner, PoStProofType::window(SectorSize::KiB2), &mut |_| false);
    posts[0].proofs[0].proof_bytes[5] ^= 1;
    sim.good(WORKER, miner, 5, &posts[0], none());
    // All that is free is taken out, so that there is nothing to pay a penalty with.
    sim.good(OWNER, miner, 16, &WithdrawBalanceParams { amount_requested: fil(1000) }, none());
    sim.devnet.mine(15).unwrap();
    sim.good(OTHER, miner, 24, &DisputeWindowedPoStParams { deadline, post_index: 0 }, none());
    let state: State = sim.state(miner);
    assert!(state.fee_debt > fil(20), "{}", state.fee_debt);
    assert_eq!(state.locked_funds, none(), "what vested went first");
    sim.check();
    let withdraw = WithdrawBalanceParams { amount_requested: none() };
    refused(&sim.land(OWNER, miner, 16, &withdraw, none()), 19, "can not repay fee debt");
    refused(&sim.land(WORKER, miner, 28, &sim.pre_commit_params(miner, &[9]), none()), 19, "can not repay fee debt");
    refused(&sim.land(OTHER, miner, 22, &(), fil(1)), 18, "not one of supported");
    let burnt = sim.balance(99);
    sim.good(WORKER, miner, 22, &(), fil(10));
    assert!(sim.balance(99) - burnt >= fil(10));
    assert!(sim.state(miner).fee_debt < state.fee_debt - fil(9));
    sim.good(WORKER, miner, 22, &(), fil(50));
    assert_eq!(sim.state(miner).fee_debt, none());
    sim.good(OWNER, miner, 16, &withdraw, none());
    sim.check();
}

#[test]
fn blocks_pay_and_what_they_pay_vests() {
    let moving =
        PolicyParameters { block_rewards: true, moving_economy: true, initial_network_power: Some(1 << 30), ..short() };
    let (sim, miner) = sim(moving);
    let header = |sim: &Sim| sim.call("ChainHead", json!([]))["Blocks"][0].clone();
    assert_eq!(header(&sim)["Miner"], "t00", "nobody has power yet");
    let read = |sim: &Sim| {
        let power = sim.call("StateReadState", json!(["t04", []]))["State"].clone();
        let reward = sim.call("StateReadState", json!(["t02", []]))["State"].clone();
        (power["ThisEpochQAPowerSmoothed"].clone(), reward["ThisEpochRewardSmoothed"].clone(), reward["Epoch"].clone())
    };
    let before = read(&sim);
    sim.active(miner, WORKER, &[1, 2]);
    let locked = sim.state(miner).locked_funds;
    let balance = sim.balance(miner);
    sim.devnet.mine(10).unwrap();
    assert_eq!(header(&sim)["Miner"], format!("t0{miner}"));
    assert_eq!(header(&sim)["ElectionProof"]["WinCount"], 5);
    let after = read(&sim);
    assert!(before.0 != after.0 && before.1 != after.1, "the estimates move");
    assert_eq!(after.2, sim.epoch(), "as of the epoch before");
    let earned = sim.balance(miner) - balance;
    assert!(earned > fil(300) && earned < fil(400), "ten epochs of about 36 FIL: {earned}");
    assert!(sim.state(miner).locked_funds - locked > fil(200), "three quarters are locked");
    sim.check();
    let withdraw = WithdrawBalanceParams { amount_requested: fil(100_000) };
    let landed = sim.good(OWNER, miner, 16, &withdraw, none());
    let got: WithdrawBalanceReturn = landed.receipt.return_data.deserialize().unwrap();
    assert!(got.amount_withdrawn > fil(100) && got.amount_withdrawn < fil(250), "{}", got.amount_withdrawn);
    sim.check();
}

#[test]
fn the_network_says_that_it_is_another_version() {
    let (sim, _) = sim(short());
    let version = |sim: &Sim| sim.call("StateNetworkVersion", json!([[]]));
    assert_eq!(version(&sim), 28);
    let at = sim.devnet.call("Devnet.NetworkVersion", json!([{"Version": 99}])).unwrap();
    assert_eq!((version(&sim), at), (json!(28), json!(sim.epoch() + 1)));
    let before = sim.call("ChainHead", json!([]))["Cids"].clone();
    sim.devnet.mine(1).unwrap();
    assert_eq!(version(&sim), 99);
    assert_eq!(sim.call("StateNetworkVersion", json!([before])), 28);
    assert!(sim.devnet.call("Devnet.NetworkVersion", json!([{"Version": 28, "Height": 1}])).is_err());
    sim.devnet.call("Devnet.NetworkVersion", json!([{"Version": 28}])).unwrap();
    sim.devnet.mine(1).unwrap();
    assert_eq!(version(&sim), 28);
}
