//! Several miners on a network whose time is compressed, driven through messages; their state is read as the chain's own
//! objects.

use crate::harness::{Key, base64_text, bytes_of};
use cid::Cid;
use damocles_chain::devnet::{Devnet, DevnetConfig, LandedMessage, PolicyParameters};
use damocles_core::{
    ActorId, CommR, PoStProofType, SectorNumber, SectorSize,
    testing::{FakeVerifier, fake_proof},
    verify::{PoStStatement, ProvenSector, Randomness},
};
use fil_actor_miner_state::v18::{
    DeadlineInfo, MinerInfo, Partition, PoStPartition, SectorOnChainInfo, Sectors, State, SubmitWindowedPoStParams,
};
use fil_actor_power_state::v18::{CreateMinerParams, CreateMinerReturn};
use fil_actors_shared::v18::runtime::Policy;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_blockstore::Blockstore;
use fvm_ipld_encoding::{CborStore, RawBytes, de::DeserializeOwned, ser::Serialize, to_vec};
use fvm_shared::{
    address::Address,
    econ::TokenAmount,
    message::Message,
    randomness::Randomness as FvmRandomness,
    sector::{PoStProof, RegisteredPoStProof},
};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The whole of FIL of a number.
pub(crate) fn fil(n: i64) -> TokenAmount {
    TokenAmount::from_whole(n)
}

/// A period of 480 epochs, and everything else in proportion.
pub(crate) fn short() -> PolicyParameters {
    PolicyParameters {
        proving_period: 480,
        challenge_window: 10,
        challenge_lookback: 4,
        fault_declaration_cutoff: 14,
        fault_max_age: 960,
        min_sector_expiration: 1500,
        worker_key_change_delay: 50,
        ..PolicyParameters::default()
    }
}

pub(crate) fn policy(parameters: &PolicyParameters) -> Policy {
    Policy {
        wpost_proving_period: parameters.proving_period,
        wpost_challenge_window: parameters.challenge_window,
        wpost_challenge_lookback: parameters.challenge_lookback,
        wpost_dispute_window: parameters.proving_period * 1800 / 2880,
        fault_declaration_cutoff: parameters.fault_declaration_cutoff,
        fault_max_age: parameters.fault_max_age,
        ..Policy::default()
    }
}

/// The chain's objects, as anybody reads them. What was read once is kept.
pub(crate) struct Remote<'a>(&'a Sim);

impl Blockstore for Remote<'_> {
    fn get(&self, k: &Cid) -> anyhow::Result<Option<Vec<u8>>> {
        if let Some(kept) = self.0.objects.borrow().get(k) {
            return Ok(Some(kept.clone()));
        }
        let read = self.0.devnet.call("Filecoin.ChainReadObj", json!([{"/": k.to_string()}]));
        let read = read.ok().map(|value| bytes_of(&value));
        if let Some(read) = &read {
            self.0.objects.borrow_mut().insert(*k, read.clone());
        }
        Ok(read)
    }

    fn put_keyed(&self, _: &Cid, _: &[u8]) -> anyhow::Result<()> {
        anyhow::bail!("the chain is only read")
    }
}

pub(crate) struct Sim {
    pub(crate) devnet: Arc<Devnet>,
    pub(crate) policy: Policy,
    /// Accounts by ID: the odd ones are BLS accounts, which may be workers.
    pub(crate) keys: BTreeMap<u64, Key>,
    objects: RefCell<HashMap<Cid, Vec<u8>>>,
    periods: RefCell<HashMap<u64, i64>>,
}

impl Sim {
    pub(crate) fn new(parameters: PolicyParameters, accounts: u8, each: TokenAmount) -> Self {
        let keys: Vec<Key> = (1..=accounts).map(|n| if n % 2 == 0 { Key::bls(n) } else { Key::secp(n) }).collect();
        let config = DevnetConfig {
            network_name: "devnet-fake-sim".to_owned(),
            fund: keys.iter().map(|key| (key.address(), each.clone())).collect(),
            policy: parameters.clone(),
            ..DevnetConfig::default()
        };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let keys = (1000..).zip(keys).collect();
        Self::over(devnet, policy(&parameters), keys)
    }

    pub(crate) fn over(devnet: Arc<Devnet>, policy: Policy, keys: BTreeMap<u64, Key>) -> Self {
        Self { devnet, policy, keys, objects: RefCell::default(), periods: RefCell::default() }
    }

    /// For how many epochs a deadline of a miner has been open when the next tipset is mined.
    pub(crate) fn window(&self, miner: u64) -> i64 {
        let known = self.periods.borrow().get(&miner).copied();
        let start = known.unwrap_or_else(|| self.state(miner).proving_period_start);
        self.periods.borrow_mut().insert(miner, start);
        (self.epoch() + 1 - start).rem_euclid(self.policy.wpost_challenge_window)
    }

    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        self.devnet.call(&format!("Filecoin.{method}"), params).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.devnet.head().epoch.0
    }

    pub(crate) fn store(&self) -> Remote<'_> {
        Remote(self)
    }

    /// A message that does not wait for room: it pays, and has the limit that it needs.
    pub(crate) fn message(
        &self,
        from: u64,
        to: u64,
        method: u64,
        params: &impl Serialize,
        value: TokenAmount,
    ) -> Message {
        let address = self.keys[&from].address();
        Message {
            version: 0,
            from: address,
            to: Address::new_id(to),
            sequence: self.call("MpoolGetNonce", json!([address.to_string()])).as_u64().unwrap(),
            value,
            method_num: method,
            params: RawBytes::serialize(params).unwrap(),
            // A block holds ten of these; many proofs at once may need more.
            gas_limit: if method == 34 { 2_000_000_000 } else { 1_000_000_000 },
            gas_fee_cap: TokenAmount::from_atto(200_000),
            gas_premium: TokenAmount::from_atto(100_000),
        }
    }

    pub(crate) fn push(
        &self,
        from: u64,
        to: u64,
        method: u64,
        params: &impl Serialize,
        value: TokenAmount,
    ) -> Option<Cid> {
        let message = self.message(from, to, method, params, value);
        self.devnet.push(self.keys[&from].sign(message)).ok()
    }

    /// Sends a message and mines it, and a tipset more so that reads see what it did.
    pub(crate) fn land(
        &self,
        from: u64,
        to: u64,
        method: u64,
        params: &impl Serialize,
        value: TokenAmount,
    ) -> LandedMessage {
        let message = self.message(from, to, method, params, value);
        let cid = self.devnet.push(self.keys[&from].sign(message)).unwrap();
        self.devnet.mine(2).unwrap();
        self.devnet.landed(&cid).expect("a good message lands in the next tipset")
    }

    #[track_caller]
    pub(crate) fn good(
        &self,
        from: u64,
        to: u64,
        method: u64,
        params: &impl Serialize,
        value: TokenAmount,
    ) -> LandedMessage {
        let landed = self.land(from, to, method, params, value);
        assert_eq!(landed.receipt.exit_code.value(), 0, "method {method}: {}", landed.error);
        landed
    }

    pub(crate) fn create_params(&self, owner: u64, worker: u64) -> CreateMinerParams {
        CreateMinerParams {
            owner: Address::new_id(owner),
            worker: Address::new_id(worker),
            window_post_proof_type: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            peer: vec![1],
            multiaddrs: vec![],
        }
    }

    /// A miner whose owner is its control address too: secp256k1 signatures are cheap.
    pub(crate) fn create_miner(&self, owner: u64, worker: u64, value: TokenAmount) -> u64 {
        let landed = self.good(owner, 4, 2, &self.create_params(owner, worker), value);
        let made: CreateMinerReturn = landed.receipt.return_data.deserialize().unwrap();
        made.id_address.id().unwrap()
    }

    /// The state that reads at the head see: that before its messages.
    pub(crate) fn state(&self, miner: u64) -> State {
        self.state_of(miner)
    }

    /// The same of any actor.
    pub(crate) fn state_of<T: DeserializeOwned>(&self, id: u64) -> T {
        let actor = self.call("StateGetActor", json!([format!("t0{id}"), []]));
        let cid: Cid = actor["Head"]["/"].as_str().unwrap().parse().unwrap();
        self.store().get_cbor(&cid).unwrap().unwrap()
    }

    pub(crate) fn sector(&self, miner: u64, number: u64) -> SectorOnChainInfo {
        Sectors::load(&self.store(), &self.state(miner).sectors).unwrap().must_get(number).unwrap()
    }

    /// The sectors of a deadline that live.
    pub(crate) fn live(&self, miner: u64, deadline: u64) -> Vec<u64> {
        let partitions = self.partitions(&self.state(miner), deadline);
        partitions.iter().flat_map(|(_, p)| p.live_sectors().iter().collect::<Vec<_>>()).collect()
    }

    pub(crate) fn info(&self, miner: u64) -> MinerInfo {
        self.state(miner).get_info(&self.store()).unwrap()
    }

    pub(crate) fn balance(&self, id: u64) -> TokenAmount {
        let text = self.call("WalletBalance", json!([format!("t0{id}")]));
        TokenAmount::from_atto(text.as_str().unwrap().parse::<i128>().unwrap())
    }

    pub(crate) fn power(&self, miner: u64) -> u64 {
        let power = self.call("StateMinerPower", json!([format!("t0{miner}"), []]));
        power["MinerPower"]["RawBytePower"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn partitions(&self, state: &State, deadline: u64) -> Vec<(u64, Partition)> {
        let store = self.store();
        let deadline = state.load_deadlines(&store).unwrap().load_deadline(&store, deadline).unwrap();
        let mut out = Vec::new();
        deadline
            .for_each(&store, |index, partition| {
                out.push((index, partition.clone()));
                Ok(())
            })
            .unwrap();
        out
    }

    /// Where a sector is.
    pub(crate) fn find(&self, miner: u64, number: u64) -> (u64, u64) {
        self.state(miner).find_sector(&self.store(), number).unwrap()
    }

    pub(crate) fn randomness(&self, from: &str, tag: i64, epoch: i64, miner: u64) -> [u8; 32] {
        let entropy = base64_text(&to_vec(&Address::new_id(miner)).unwrap());
        let value = self.call(&format!("StateGetRandomnessFrom{from}"), json!([tag, epoch, entropy, []]));
        bytes_of(&value).try_into().unwrap()
    }

    /// The deadline that is open when the next tipset is mined.
    pub(crate) fn deadline(&self, state: &State) -> DeadlineInfo {
        state.deadline_info(&self.policy, self.epoch() + 1)
    }

    /// The proofs of what is not proven yet in the deadline that is open, three partitions each. `skip` says which sectors
    /// are left out.
    pub(crate) fn posts(
        &self,
        miner: u64,
        proof_type: PoStProofType,
        skip: &mut dyn FnMut(u64) -> bool,
    ) -> Vec<SubmitWindowedPoStParams> {
        let store = self.store();
        let state = self.state(miner);
        let open = self.deadline(&state);
        let deadline = state.load_deadlines(&store).unwrap().load_deadline(&store, open.index).unwrap();
        if deadline.live_sectors == 0 {
            return Vec::new();
        }
        let sectors = Sectors::load(&store, &state.sectors).unwrap();
        let mut waiting = Vec::new();
        for (index, partition) in self.partitions(&state, open.index) {
            let good = &(&partition.live_sectors() - &partition.faults) | &partition.recoveries;
            if deadline.partitions_posted.get(index) || good.is_empty() {
                continue;
            }
            let skipped = BitField::try_from_bits(good.iter().filter(|number| skip(*number))).unwrap();
            waiting.push((index, &good - &skipped, skipped));
        }
        let commit = bytes_of(&self.call("StateGetRandomnessFromTickets", json!([9, open.open, null, []])));
        let seed = Randomness(self.randomness("Beacon", 4, open.challenge, miner));
        let of = |partitions: &[(u64, BitField, BitField)]| {
            let mut numbers: Vec<u64> = partitions.iter().flat_map(|(_, good, _)| good.iter()).collect();
            numbers.sort_unstable();
            let proven = |number: u64| {
                let sector = sectors.must_get(number).unwrap();
                ProvenSector { number: SectorNumber(number), comm_r: CommR::from_cid(&sector.sealed_cid).unwrap() }
            };
            let statement = PoStStatement {
                miner: ActorId(miner),
                proof_type,
                randomness: seed,
                sectors: numbers.into_iter().map(proven).collect(),
            };
            let partition = |(index, _, skipped): &(u64, BitField, BitField)| PoStPartition {
                index: *index,
                skipped: skipped.clone(),
            };
            SubmitWindowedPoStParams {
                deadline: open.index,
                partitions: partitions.iter().map(partition).collect(),
                proofs: vec![PoStProof {
                    post_proof: RegisteredPoStProof::from(proof_type.number()),
                    proof_bytes: fake_proof::window_post(&statement),
                }],
                chain_commit_epoch: open.open,
                chain_commit_rand: FvmRandomness(commit.clone()),
            }
        };
        waiting.chunks(3).map(of).collect()
    }

    /// Mines until a deadline has been open for two epochs, with null rounds.
    pub(crate) fn open(&self, miner: u64, deadline: u64) {
        let state = self.state(miner);
        let mut info = fil_actor_miner_state::v18::new_deadline_info(
            &self.policy,
            state.current_proving_period_start(&self.policy, self.epoch() + 1),
            deadline,
            self.epoch() + 1,
        );
        while info.open < self.epoch() {
            info = fil_actor_miner_state::v18::new_deadline_info(
                &self.policy,
                info.period_start + self.policy.wpost_proving_period,
                deadline,
                self.epoch() + 1,
            );
        }
        self.devnet.grow_to(info.challenge.max(self.epoch() + 1)).unwrap();
        self.devnet.grow_to(info.open.max(self.epoch() + 1)).unwrap();
        self.devnet.grow_to(info.open + 1).unwrap();
    }

    /// Proves a deadline with all that is in it.
    pub(crate) fn prove_deadline(&self, miner: u64, from: u64, deadline: u64) {
        self.open(miner, deadline);
        for params in self.posts(miner, PoStProofType::window(SectorSize::KiB2), &mut |_| false) {
            self.good(from, miner, 5, &params, TokenAmount::default());
        }
    }

    /// Proves a deadline, and mines until it has ended. Returns what its end cost the miner.
    pub(crate) fn prove_to_the_end(&self, miner: u64, from: u64, deadline: u64) -> TokenAmount {
        self.prove_deadline(miner, from, deadline);
        let before = self.balance(miner);
        self.devnet.mine(u64::try_from(self.policy.wpost_challenge_window).unwrap()).unwrap();
        before - self.balance(miner)
    }

    /// Sectors that were committed without an interaction, in one deadline, and proven once.
    pub(crate) fn active(&self, miner: u64, from: u64, numbers: &[u64]) -> u64 {
        let state = self.state(miner);
        let deadline = (self.deadline(&state).index + 10) % 48;
        let params = self.ni_params(miner, numbers, self.epoch() + 3000, deadline);
        self.good(from, miner, 36, &params, fil(1));
        self.prove_deadline(miner, from, deadline);
        deadline
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.devnet.check().unwrap(), Vec::<String>::new());
    }
}

/// A replica of a sector: the first, or what updates made of it.
pub(crate) fn comm_r(miner: u64, number: u64, generation: u8) -> CommR {
    let mut bytes = [generation; 32];
    bytes[..8].copy_from_slice(&miner.to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    CommR(bytes)
}

pub(crate) fn bits(numbers: impl IntoIterator<Item = u64>) -> BitField {
    BitField::try_from_bits(numbers).unwrap()
}
