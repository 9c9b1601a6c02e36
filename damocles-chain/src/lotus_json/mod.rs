//! The JSON of Lotus' RPC, to the letter.
//!
//! Values are held in the chain's own types (`cid`, `fvm_shared`, `fvm_ipld_bitfield`), whose serde forms are made
//! for CBOR. [`LotusJson`] gives each its JSON form; `#[serde(with = "form")]` uses it for a field and [`Lotus`] for a
//! value that stands alone. Reading is lenient where Lotus, Venus and Forest differ: unknown fields are skipped, and a
//! list, a byte string or an amount that may be absent may also be `null`.

mod address;
mod bit_field;
pub mod form;
mod message;
mod miner;
mod network;
mod scalar;
mod sector;
mod tipset;

pub use address::{AddressError, from_core, parse_address, text_of, to_core};
pub use bit_field::{BitFieldError, MAX_SECTORS, bit_field_of, sector_set_of};
pub use form::{Lotus, LotusJson};
pub use message::{
    GasCost, InvocResult, MessageReceipt, MessageSendSpec, MsgLookup, SignedMessage, message_cid, signed_message_cid,
};
pub use miner::{
    BeneficiaryTerm, Claim, Deadline, DeadlineInfo, MinerInfo, MinerPower, MinerSectors, Partition, SectorExpiration,
    SectorLocation,
};
pub use network::{ActorState, NetworkParams, Version};
pub use sector::{SectorOnChainInfo, SectorPreCommitInfo, SectorPreCommitOnChainInfo};
pub use tipset::{BeaconEntry, BlockHeader, ElectionProof, HeadChange, HeadChangeKind, PoStProof, Ticket, TipSet};
