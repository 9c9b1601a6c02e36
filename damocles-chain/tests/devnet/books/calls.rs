//! What the random run calls.

use super::{ACCOUNTS, Chance, MOST, Run, View};
use crate::sim::{bits, fil};
use damocles_core::{PoStProofType, SectorSize};
use fil_actor_miner_state::v18::{
    ChangeBeneficiaryParams, ChangeMultiaddrsParams, ChangeOwnerAddressParams, ChangePeerIDParams,
    ChangeWorkerAddressParams, CompactPartitionsParams, CompactSectorNumbersParams, DeclareFaultsParams,
    DeclareFaultsRecoveredParams, DisputeWindowedPoStParams, ExpirationExtension2, ExtendSectorExpiration2Params,
    FaultDeclaration, RecoveryDeclaration, TerminateSectorsParams, TerminationDeclaration, WithdrawBalanceParams,
};
use fvm_ipld_encoding::BytesDe;
use fvm_shared::{address::Address, econ::TokenAmount};
use num_traits::Zero;

impl Run {
    /// Proves the deadline that is open, mostly.
    pub(super) fn post(&mut self, view: &View) {
        let open = self.sim.deadline(&view.state);
        if self.sim.epoch() + 1 != open.open + 3 || !view.state.deadline_cron_active || self.chance.percent(12) {
            return;
        }
        let skips = self.chance.percent(10);
        let from = self.caller(view);
        let chance = &mut self.chance;
        let kind = PoStProofType::window(SectorSize::KiB2);
        let posts = self.sim.posts(view.miner, kind, &mut |_| skips && chance.percent(30));
        for mut params in posts {
            if self.chance.percent(12) {
                params.proofs[0].proof_bytes[0] ^= 1;
            }
            self.send(from, view.miner, 5, &params, TokenAmount::zero());
        }
    }

    /// Something that a miner does about its sectors.
    pub(super) fn onboard(&mut self, view: &View) {
        let (miner, from) = (view.miner, self.caller(view));
        let room = view.sectors.len() + view.pre_commits.len() < MOST;
        let value = if self.chance.percent(90) { fil(3000) } else { TokenAmount::zero() };
        match self.chance.below(4) {
            0 if room => {
                let count = 1 + self.chance.below(6);
                let numbers = self.new_numbers(miner, count);
                let mut params = self.sim.pre_commit_params(miner, &numbers);
                if self.chance.percent(8) {
                    params.sectors[0].expiration = self.sim.epoch() + 100;
                }
                self.send(from, miner, 28, &params, value);
            }
            1 if room => {
                let count = 1 + self.chance.below(5);
                let numbers = self.new_numbers(miner, count);
                let deadline = self.chance.below(49);
                let life = 1510 + i64::try_from(self.chance.below(900)).unwrap();
                let mut params = self.sim.ni_params(miner, &numbers, self.sim.epoch() + life, deadline);
                if self.chance.percent(8) {
                    params.aggregate_proof = vec![3; 192].into();
                }
                self.send(from, miner, 36, &params, value);
            }
            _ if !view.pre_commits.is_empty() => {
                let aggregate = view.pre_commits.len() >= 4 && self.chance.percent(60);
                let mut params = self.sim.prove_params(miner, &view.pre_commits, aggregate);
                if params.sector_activations.is_empty() {
                    return;
                }
                params.require_activation_success = self.chance.percent(50);
                if let (true, Some(proof)) = (self.chance.percent(10), params.sector_proofs.first_mut()) {
                    *proof = vec![1; 192].into();
                }
                self.send(from, miner, 34, &params, value);
            }
            _ => {}
        }
    }

    pub(super) fn maintain(&mut self, view: &View) {
        let (miner, from) = (view.miner, self.caller(view));
        let Some((number, deadline, partition, found)) = self.sector(view) else { return };
        let none = TokenAmount::zero();
        let some = |chance: &mut Chance, of: &fvm_ipld_bitfield::BitField| {
            let mut numbers: Vec<u64> = of.iter().filter(|_| chance.percent(60)).collect();
            numbers.push(number);
            bits(numbers)
        };
        match self.chance.below(7) {
            0 => {
                let sectors = some(&mut self.chance, &found.live_sectors());
                let params = TerminateSectorsParams {
                    terminations: vec![TerminationDeclaration { deadline, partition, sectors }],
                };
                self.send(from, miner, 9, &params, none);
            }
            1 => {
                let sectors = some(&mut self.chance, &found.active_sectors());
                let params = DeclareFaultsParams { faults: vec![FaultDeclaration { deadline, partition, sectors }] };
                self.send(from, miner, 10, &params, none);
            }
            2 | 3 => {
                if found.faults.is_empty() && self.chance.percent(90) {
                    return;
                }
                let sectors = if found.faults.is_empty() { bits([number]) } else { found.faults };
                let params = DeclareFaultsRecoveredParams {
                    recoveries: vec![RecoveryDeclaration { deadline, partition, sectors }],
                };
                self.send(from, miner, 11, &params, fil(100));
            }
            4 => {
                let sectors = some(&mut self.chance, &found.active_sectors());
                let new_expiration = self.sim.epoch() + 2000 + i64::try_from(self.chance.below(400_000)).unwrap();
                let extension =
                    ExpirationExtension2 { deadline, partition, sectors, sectors_with_claims: vec![], new_expiration };
                self.send(from, miner, 32, &ExtendSectorExpiration2Params { extensions: vec![extension] }, none);
            }
            5 => {
                let mut params = self.sim.update_params(miner, number);
                if self.chance.percent(10) {
                    params.sector_proofs = vec![vec![1; 192].into()];
                }
                self.send(from, miner, 35, &params, fil(10));
            }
            _ => {
                let partitions = if self.chance.percent(80) { bits(0..=partition) } else { bits([partition + 1]) };
                self.send(from, miner, 19, &CompactPartitionsParams { deadline, partitions }, none);
            }
        }
    }

    pub(super) fn administrate(&mut self, view: &View) {
        let (miner, from, owner) = (view.miner, self.caller(view), view.info.owner.id().unwrap());
        let none = TokenAmount::zero();
        let account = 1000 + self.chance.below(u64::from(ACCOUNTS));
        match self.chance.below(13) {
            0 | 1 => {
                // All that is free, now and then: what costs something then makes a debt.
                let most = if self.chance.percent(40) { 1_000_000 } else { 5000 };
                let amount_requested = fil(i64::try_from(most - self.chance.below(5000)).unwrap());
                let by = if self.chance.percent(50) { view.info.beneficiary.id().unwrap() } else { from };
                self.send(by, miner, 16, &WithdrawBalanceParams { amount_requested }, none);
            }
            2 => {
                let value = fil(i64::try_from(self.chance.below(200)).unwrap());
                self.send(from, miner, 22, &(), value);
            }
            3 => {
                let new_worker = Address::new_id(account);
                let new_control_addresses = vec![view.info.owner];
                let params = ChangeWorkerAddressParams { new_worker, new_control_addresses };
                self.send(owner, miner, 3, &params, none);
            }
            4 => self.send(from, miner, 21, &(), none),
            5 => {
                let (by, new_owner) = match view.info.pending_owner_address {
                    Some(pending) => (pending.id().unwrap(), pending),
                    None => (owner, Address::new_id(account)),
                };
                let by = if self.chance.percent(15) { account } else { by };
                self.send(by, miner, 23, &ChangeOwnerAddressParams { new_owner }, none);
            }
            6 | 7 => self.beneficiary(view, account),
            8 => {
                let params = ChangePeerIDParams { new_id: vec![1; usize::try_from(self.chance.below(140)).unwrap()] };
                self.send(from, miner, 4, &params, none);
            }
            9 => {
                let address = vec![4; usize::try_from(self.chance.below(10)).unwrap()];
                self.send(from, miner, 18, &ChangeMultiaddrsParams { new_multi_addrs: vec![BytesDe(address)] }, none);
            }
            10 => {
                let first = self.numbers.get(&miner).copied().unwrap_or_default();
                let mask_sector_numbers = bits(first..first + self.chance.below(3));
                self.send(from, miner, 20, &CompactSectorNumbersParams { mask_sector_numbers }, none);
            }
            11 => {
                let method = if self.chance.percent(50) { 2 } else { 31 };
                self.send(from, miner, method, &(), none);
            }
            _ => {
                // Every other account is a worker's, and now and then the deposit is there too.
                let value = if self.chance.percent(70) { fil(3000) } else { none };
                let params = self.sim.create_params(account, account);
                self.send(account, 4, 2, &params, value);
            }
        }
    }

    fn beneficiary(&mut self, view: &View, account: u64) {
        let owner = view.info.owner.id().unwrap();
        let term = |new_beneficiary, new_quota, new_expiration| ChangeBeneficiaryParams {
            new_beneficiary,
            new_quota,
            new_expiration,
        };
        let (by, params) = match &view.info.pending_beneficiary_term {
            Some(p) => {
                let by = if p.approved_by_nominee { view.info.beneficiary } else { p.new_beneficiary };
                (by.id().unwrap(), term(p.new_beneficiary, p.new_quota.clone(), p.new_expiration))
            }
            None if view.info.beneficiary != view.info.owner => (owner, term(view.info.owner, TokenAmount::zero(), 0)),
            None => (owner, term(Address::new_id(account), fil(200), self.sim.epoch() + 300)),
        };
        self.send(by, view.miner, 30, &params, TokenAmount::zero());
    }

    /// Disputes what lies open, right or wrong.
    pub(super) fn dispute(&mut self, view: &View) {
        let deadline = (self.sim.deadline(&view.state).index + 48 - 1 - self.chance.below(3)) % 48;
        let store = self.sim.store();
        let found = view.state.load_deadlines(&store).unwrap().load_deadline(&store, deadline).unwrap();
        let count = found.optimistic_proofs_snapshot_amt(&store).unwrap().count();
        if count == 0 {
            return;
        }
        let params = DisputeWindowedPoStParams { deadline, post_index: self.chance.below(count) };
        let from = 1000 + self.chance.below(u64::from(ACCOUNTS));
        self.send(from, view.miner, 24, &params, TokenAmount::zero());
    }
}
