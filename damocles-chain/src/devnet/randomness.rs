//! Tickets, beacon entries, and what is drawn from them, exactly as the FVM draws.

use fvm_ipld_encoding::to_vec;
use fvm_shared::{address::Address, clock::ChainEpoch};

/// The domain tags of randomness that the devnet draws itself.
pub(super) mod tag {
    pub(in crate::devnet) const WINDOW_POST: i64 = 4;
    pub(in crate::devnet) const SEAL_TICKET: i64 = 5;
    pub(in crate::devnet) const INTERACTIVE_SEED: i64 = 6;
    pub(in crate::devnet) const CHAIN_COMMIT: i64 = 9;
}

/// Which ticket: that of the block at a height, on a branch of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TicketId {
    pub(super) height: ChainEpoch,
    pub(super) branch: u64,
}

/// Makes tickets and beacon entries from the genesis seed. A ticket depends on its height and on the branch that its block
/// is on, never on what happened before it; beacon entries come from outside and are the same on all branches.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    seed: [u8; 32],
}

impl Oracle {
    pub(super) const fn new(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// The VRF proof in a block's ticket: the length of a BLS signature.
    pub(super) fn ticket(&self, of: TicketId) -> Vec<u8> {
        self.bytes(b"ticket", of.height, of.branch, 96)
    }

    /// The data of the beacon entry of an epoch; there is one round per epoch. The length of a quicknet signature.
    pub(super) fn beacon(&self, epoch: ChainEpoch) -> Vec<u8> {
        self.bytes(b"beacon", epoch, 0, 48)
    }

    /// The digest that ticket randomness is drawn from.
    pub(super) fn ticket_digest(&self, of: TicketId) -> [u8; 32] {
        blake2b(&self.ticket(of))
    }

    /// The digest that beacon randomness is drawn from.
    pub(super) fn beacon_digest(&self, epoch: ChainEpoch) -> [u8; 32] {
        blake2b(&self.beacon(epoch))
    }

    fn bytes(&self, domain: &[u8], height: ChainEpoch, branch: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 64);
        let mut part = 0_u8;
        while out.len() < len {
            let mut state = blake2b_simd::Params::new().hash_length(64).key(&self.seed).to_state();
            state.update(domain).update(&height.to_be_bytes()).update(&[part]);
            // The first branch keeps the tickets that it always had.
            if branch != 0 {
                state.update(&branch.to_be_bytes());
            }
            out.extend_from_slice(state.finalize().as_bytes());
            part += 1;
        }
        out.truncate(len);
        out
    }
}

/// BLAKE2b-256.
pub(super) fn blake2b(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(blake2b_simd::Params::new().hash_length(32).hash(bytes).as_bytes());
    out
}

/// Draws randomness from a digest.
pub(super) fn draw(digest: &[u8; 32], tag: i64, epoch: ChainEpoch, entropy: &[u8]) -> [u8; 32] {
    let mut data = Vec::with_capacity(48 + entropy.len());
    data.extend_from_slice(&tag.to_be_bytes());
    data.extend_from_slice(digest);
    data.extend_from_slice(&epoch.to_be_bytes());
    data.extend_from_slice(entropy);
    blake2b(&data)
}

/// The entropy of a miner: the CBOR of its ID address.
pub(super) fn entropy(miner: u64) -> Vec<u8> {
    to_vec(&Address::new_id(miner)).expect("an address encodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fil_actors_shared::v18::runtime::DomainSeparationTag as Tag;

    #[test]
    fn draws_as_the_fvm_draws() {
        assert_eq!(entropy(1001), [0x43, 0x00, 0xe9, 0x07], "the address as a CBOR byte string");
        let numbers = [
            Tag::WindowedPoStChallengeSeed,
            Tag::SealRandomness,
            Tag::InteractiveSealChallengeSeed,
            Tag::PoStChainCommit,
        ];
        assert_eq!(
            numbers.map(|t| t as i64),
            [tag::WINDOW_POST, tag::SEAL_TICKET, tag::INTERACTIVE_SEED, tag::CHAIN_COMMIT]
        );
        let digest = Oracle::new([7; 32]).ticket_digest(TicketId { height: 1000, branch: 0 });
        let mut drawn_from = vec![0, 0, 0, 0, 0, 0, 0, 5];
        drawn_from.extend(digest);
        drawn_from.extend([0, 0, 0, 0, 0, 0, 0x04, 0xd2, 0x43, 0x00, 0xe9, 0x07]);
        assert_eq!(draw(&digest, tag::SEAL_TICKET, 1234, &entropy(1001)), blake2b(&drawn_from));
    }

    #[test]
    fn each_height_has_a_ticket_of_its_own() {
        let oracle = Oracle::new([7; 32]);
        let id = |height, branch| TicketId { height, branch };
        assert_ne!(oracle.ticket(id(1, 0)), oracle.ticket(id(2, 0)));
        assert_ne!(oracle.ticket(id(1, 0)), oracle.ticket(id(1, 1)));
        assert_ne!(oracle.ticket(id(1, 0)), Oracle::new([8; 32]).ticket(id(1, 0)));
        assert_eq!((oracle.ticket(id(1, 0)).len(), oracle.beacon(1).len()), (96, 48));
        assert_ne!(oracle.ticket(id(1, 0))[..48], oracle.beacon(1)[..]);
    }
}
