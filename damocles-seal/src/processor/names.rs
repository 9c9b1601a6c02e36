//! Names that the proofs library and the chain share, without the library.

use damocles_core::ActorId;

/// The name of the tree over a sector's data in a cache directory.
pub(crate) const TREE_D: &str = "sc-02-data-tree-d.dat";

/// The prover of a miner's proofs: the payload of its ID address (unsigned LEB128), padded with zeros.
pub(crate) fn prover_id(miner: ActorId) -> [u8; 32] {
    let mut id = [0; 32];
    let mut rest = miner.0;
    for byte in &mut id {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        *byte = if rest == 0 { low & 0x7f } else { low | 0x80 };
        if rest == 0 {
            break;
        }
    }
    id
}

/// The miner of a prover; none if it is no ID address.
#[cfg(feature = "proofs")]
pub(crate) fn miner_of(prover: &[u8; 32]) -> Option<ActorId> {
    let mut id = 0_u64;
    for (at, byte) in prover.iter().enumerate() {
        id |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * at).ok()?)?;
        if byte & 0x80 == 0 {
            // Any other spelling, and anything behind it, is no address.
            return Some(ActorId(id)).filter(|miner| prover_id(*miner) == *prover);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provers_are_named_by_varints() {
        let mut expected = [0; 32];
        expected[..2].copy_from_slice(&[0xe8, 0x07]);
        assert_eq!(prover_id(ActorId(1000)), expected);
        expected[..2].copy_from_slice(&[0x7f, 0x00]);
        assert_eq!(prover_id(ActorId(127)), expected);
        assert_eq!(prover_id(ActorId(u64::MAX))[..11], [255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0]);
    }

    #[cfg(feature = "proofs")]
    #[test]
    fn a_prover_names_its_miner() {
        for id in [0, 1, 127, 128, 1000, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(miner_of(&prover_id(ActorId(id))), Some(ActorId(id)), "{id}");
        }
        assert_eq!(miner_of(&[0xff; 32]), None);
        let mut behind = prover_id(ActorId(1000));
        behind[5] = 1;
        assert_eq!(miner_of(&behind), None);
    }
}
