//! Accounts, messages and a miner.

use bls_signatures::Serialize as _;
use cid::Cid;
use damocles_chain::devnet::{Devnet, DevnetConfig, LandedMessage, PushError, SignedMessage, message_cid};
use damocles_core::{
    ActorId, CommD, CommR, PoStProofType, SealProofType, SectorId, SectorNumber, SectorSize,
    testing::{FakeVerifier, fake_proof},
    verify::{PoStStatement, ProvenSector, Randomness, SealStatement},
    zero_comm_d,
};
use fil_actor_miner_state::v18::{
    CompactCommD, DeadlineInfo, PieceActivationManifest, PoStPartition, PreCommitSectorBatchParams2,
    ProveCommitSectors3Params, SectorActivationManifest, SectorPreCommitInfo, SubmitWindowedPoStParams,
};
use fil_actor_power_state::v18::{CreateMinerParams, CreateMinerReturn};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::{RawBytes, ser::Serialize, to_vec};
use fvm_shared::{
    address::Address,
    crypto::signature::Signature,
    econ::TokenAmount,
    message::Message,
    randomness::Randomness as FvmRandomness,
    sector::{PoStProof, RegisteredPoStProof, RegisteredSealProof},
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

pub(crate) const SECTOR_LIFE: i64 = 300 * 2880;

pub(crate) enum Key {
    Secp(k256::ecdsa::SigningKey),
    Bls(bls_signatures::PrivateKey),
}

impl Key {
    pub(crate) fn secp(seed: u8) -> Self {
        Self::Secp(k256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub(crate) fn bls(seed: u8) -> Self {
        let mut bytes = [0; 32];
        bytes[0] = seed;
        Self::Bls(bls_signatures::PrivateKey::from_bytes(&bytes).unwrap())
    }

    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Secp(key) => Address::new_secp256k1(key.verifying_key().to_encoded_point(false).as_bytes()).unwrap(),
            Self::Bls(key) => Address::new_bls(&key.public_key().as_bytes()).unwrap(),
        }
    }

    pub(crate) fn sign(&self, message: Message) -> SignedMessage {
        let signed = message_cid(&message).to_bytes();
        let signature = match self {
            Self::Secp(key) => {
                let hash = blake2b_simd::Params::new().hash_length(32).hash(&signed);
                let (signature, id) = key.sign_prehash_recoverable(hash.as_bytes()).unwrap();
                let mut bytes = signature.to_bytes().to_vec();
                bytes.push(id.to_byte());
                Signature::new_secp256k1(bytes)
            }
            Self::Bls(key) => Signature::new_bls(key.sign(&signed).as_bytes()),
        };
        SignedMessage { message, signature }
    }
}

pub(crate) struct Net {
    pub(crate) devnet: Arc<Devnet>,
    pub(crate) owner: Key,
    pub(crate) worker: Key,
    pub(crate) miner: Address,
}

pub(crate) fn config() -> DevnetConfig {
    DevnetConfig {
        network_name: "devnet-fake-test".to_owned(),
        fund: vec![
            (Key::secp(1).address(), TokenAmount::from_whole(10_000)),
            (Key::bls(2).address(), TokenAmount::from_whole(10_000)),
        ],
        ..DevnetConfig::default()
    }
}

impl Net {
    /// A devnet without a miner.
    pub(crate) fn bare() -> Self {
        Self::over_config(config())
    }

    pub(crate) fn over_config(config: DevnetConfig) -> Self {
        Self::over(Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap())
    }

    pub(crate) fn at(home: &Path) -> Self {
        Self::over(Devnet::open(config(), Arc::new(FakeVerifier), home).unwrap())
    }

    fn over(devnet: Arc<Devnet>) -> Self {
        Self { devnet, owner: Key::secp(1), worker: Key::bls(2), miner: Address::new_id(0) }
    }

    /// A devnet with a miner.
    pub(crate) fn with_miner() -> Self {
        let mut net = Self::bare();
        net.create_miner();
        net
    }

    pub(crate) fn create_miner(&mut self) {
        let landed = self.try_create(&self.worker.address(), TokenAmount::from_whole(1));
        assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
        let made: CreateMinerReturn = landed.receipt.return_data.deserialize().unwrap();
        self.miner = made.id_address;
    }

    pub(crate) fn try_create(&self, worker: &Address, value: TokenAmount) -> LandedMessage {
        let params = CreateMinerParams {
            owner: self.owner.address(),
            worker: *worker,
            window_post_proof_type: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            peer: vec![],
            multiaddrs: vec![],
        };
        let message = self.message(&self.owner, Address::new_id(4), 2, &params, value);
        self.land(&self.owner, message)
    }

    pub(crate) fn nonce(&self, from: &Address) -> u64 {
        self.call("MpoolGetNonce", json!([format!("{from}")])).as_u64().unwrap()
    }

    pub(crate) fn message(
        &self,
        from: &Key,
        to: Address,
        method: u64,
        params: &impl Serialize,
        value: TokenAmount,
    ) -> Message {
        Message {
            version: 0,
            from: from.address(),
            to,
            sequence: self.nonce(&from.address()),
            value,
            method_num: method,
            params: RawBytes::serialize(params).unwrap(),
            gas_limit: 200_000_000,
            gas_fee_cap: TokenAmount::from_atto(200_000),
            gas_premium: TokenAmount::from_atto(100_000),
        }
    }

    pub(crate) fn push(&self, from: &Key, message: Message) -> Result<Cid, PushError> {
        self.devnet.push(from.sign(message))
    }

    /// Sends a message and mines it.
    pub(crate) fn land(&self, from: &Key, message: Message) -> LandedMessage {
        let cid = self.push(from, message).unwrap();
        self.devnet.mine(1).unwrap();
        self.devnet.landed(&cid).expect("a good message lands in the next tipset")
    }

    /// Calls the miner as its worker.
    pub(crate) fn call_miner(&self, method: u64, params: &impl Serialize, value: TokenAmount) -> LandedMessage {
        let message = self.message(&self.worker, self.miner, method, params, value);
        self.land(&self.worker, message)
    }

    /// An RPC that has to succeed, by its name without the prefix.
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    pub(crate) fn try_call(&self, method: &str, params: Value) -> Result<Value, Value> {
        self.devnet
            .call(&format!("Filecoin.{method}"), params)
            .map_err(|e| json!({"code": e.code, "message": e.message}))
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.devnet.head().epoch.0
    }

    pub(crate) fn id(&self) -> u64 {
        self.miner.id().unwrap()
    }

    pub(crate) fn sector(&self, number: u64) -> Sector {
        Sector {
            number,
            comm_r: CommR([u8::try_from(number).unwrap() + 1; 32].map(|b: u8| b & 0x3f)),
            comm_d: None,
            pieces: vec![],
        }
    }

    pub(crate) fn pre_commit_info(&self, sector: &Sector) -> SectorPreCommitInfo {
        SectorPreCommitInfo {
            seal_proof: RegisteredSealProof::StackedDRG2KiBV1P1,
            sector_number: sector.number,
            sealed_cid: sector.comm_r.cid(),
            seal_rand_epoch: self.epoch() - 900,
            deal_ids: vec![],
            expiration: self.epoch() + SECTOR_LIFE,
            unsealed_cid: CompactCommD(sector.comm_d.map(|d| d.cid())),
        }
    }

    pub(crate) fn pre_commit(&self, sector: &Sector) -> LandedMessage {
        let params = PreCommitSectorBatchParams2 { sectors: vec![self.pre_commit_info(sector)] };
        self.call_miner(28, &params, TokenAmount::from_whole(1))
    }

    fn randomness(&self, from: &str, tag: i64, epoch: i64) -> Randomness {
        let entropy = base64_text(&to_vec(&self.miner).unwrap());
        let value = self.call(&format!("StateGetRandomnessFrom{from}"), json!([tag, epoch, entropy, []]));
        Randomness(bytes_of(&value).try_into().unwrap())
    }

    pub(crate) fn seal_statement(&self, sector: &Sector) -> SealStatement {
        let info = self.call("StateSectorPreCommitInfo", json!([self.miner.to_string(), sector.number, []]));
        let pre_commit_epoch = info["PreCommitEpoch"].as_i64().unwrap();
        SealStatement {
            sector: SectorId::new(ActorId(self.id()), SectorNumber(sector.number)),
            proof_type: SealProofType::of(SectorSize::KiB2),
            comm_r: sector.comm_r,
            comm_d: sector.comm_d.unwrap_or_else(|| zero_comm_d(SectorSize::KiB2)),
            ticket: self.randomness("Tickets", 5, info["Info"]["SealRandEpoch"].as_i64().unwrap()),
            seed: self.randomness("Beacon", 6, pre_commit_epoch + 10),
        }
    }

    pub(crate) fn prove_params(&self, sector: &Sector, proof: Vec<u8>) -> ProveCommitSectors3Params {
        ProveCommitSectors3Params {
            sector_activations: vec![SectorActivationManifest {
                sector_number: sector.number,
                pieces: sector.pieces.clone(),
            }],
            sector_proofs: vec![RawBytes::new(proof)],
            aggregate_proof: RawBytes::default(),
            aggregate_proof_type: None,
            require_activation_success: true,
            require_notification_success: false,
        }
    }

    pub(crate) fn prove(&self, sector: &Sector) -> LandedMessage {
        let proof = fake_proof::seal(&self.seal_statement(sector));
        self.call_miner(34, &self.prove_params(sector, proof), TokenAmount::from_whole(1))
    }

    /// A sector that is active and not yet proven.
    pub(crate) fn active_sector(&self, number: u64) -> Sector {
        let sector = self.sector(number);
        let landed = self.pre_commit(&sector);
        assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
        self.devnet.mine(11).unwrap();
        let landed = self.prove(&sector);
        assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
        self.devnet.mine(1).unwrap();
        sector
    }

    pub(crate) fn location(&self, sector: &Sector) -> (u64, u64) {
        let at = self.call("StateSectorPartition", json!([self.miner.to_string(), sector.number, []]));
        (at["Deadline"].as_u64().unwrap(), at["Partition"].as_u64().unwrap())
    }

    pub(crate) fn deadline(&self) -> DeadlineInfo {
        serde_json::from_value(self.call("StateMinerProvingDeadline", json!([self.miner.to_string(), []]))).unwrap()
    }

    /// Mines until a deadline is open, with null rounds.
    pub(crate) fn open(&self, deadline: u64) -> DeadlineInfo {
        self.devnet.mine(1).unwrap();
        let now = self.deadline();
        let mut opens = now.period_start + i64::try_from(deadline).unwrap() * 60;
        while opens + 58 <= now.current_epoch {
            opens += 2880;
        }
        // The challenge is taken from a tipset of its own.
        self.devnet.grow_to((opens - 20).max(self.epoch() + 1)).unwrap();
        self.devnet.grow_to((opens + 1).max(self.epoch() + 1)).unwrap();
        let open = self.deadline();
        assert_eq!(open.index, deadline);
        open
    }

    pub(crate) fn post_statement(&self, open: &DeadlineInfo, sectors: &[&Sector]) -> PoStStatement {
        PoStStatement {
            miner: ActorId(self.id()),
            proof_type: PoStProofType::window(SectorSize::KiB2),
            randomness: self.randomness("Beacon", 4, open.challenge),
            sectors: sectors
                .iter()
                .map(|s| ProvenSector { number: SectorNumber(s.number), comm_r: s.comm_r })
                .collect(),
        }
    }

    pub(crate) fn post_params(&self, open: &DeadlineInfo, partition: u64, proof: Vec<u8>) -> SubmitWindowedPoStParams {
        let commit = self.call("StateGetRandomnessFromTickets", json!([9, open.open, null_entropy(), []]));
        SubmitWindowedPoStParams {
            deadline: open.index,
            partitions: vec![PoStPartition { index: partition, skipped: BitField::new() }],
            proofs: vec![PoStProof { post_proof: RegisteredPoStProof::StackedDRGWindow2KiBV1P1, proof_bytes: proof }],
            chain_commit_epoch: open.open,
            chain_commit_rand: FvmRandomness(bytes_of(&commit)),
        }
    }

    pub(crate) fn post(&self, open: &DeadlineInfo, partition: u64, sectors: &[&Sector]) -> LandedMessage {
        let proof = fake_proof::window_post(&self.post_statement(open, sectors));
        self.call_miner(5, &self.post_params(open, partition, proof), TokenAmount::default())
    }

    pub(crate) fn power(&self) -> u64 {
        let power = self.call("StateMinerPower", json!([self.miner.to_string(), []]));
        power["MinerPower"]["RawBytePower"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn faults(&self) -> Value {
        self.call("StateMinerFaults", json!([self.miner.to_string(), []]))
    }
}

pub(crate) struct Sector {
    pub(crate) number: u64,
    pub(crate) comm_r: CommR,
    pub(crate) comm_d: Option<CommD>,
    pub(crate) pieces: Vec<PieceActivationManifest>,
}

pub(crate) fn base64_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn bytes_of(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn null_entropy() -> Value {
    Value::Null
}

#[track_caller]
pub(crate) fn refused(landed: &LandedMessage, code: u32, text: &str) {
    assert_eq!(landed.receipt.exit_code.value(), code, "{}", landed.error);
    assert!(landed.error.contains(text), "{}", landed.error);
}
