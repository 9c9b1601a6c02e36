//! From what an actor returned to what a receipt says.

use damocles_core::ActorId;
use fil_actor_power_state::v18::CreateMinerReturn;

/// The miner that a successful `CreateMiner` made.
pub(crate) fn created_miner(returned: &[u8]) -> Option<ActorId> {
    let created: CreateMinerReturn = fvm_ipld_encoding::from_slice(returned).ok()?;
    created.id_address.id().ok().map(ActorId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::address::Address;

    #[test]
    fn the_new_miner_is_read() {
        let created = CreateMinerReturn { id_address: Address::new_id(1234), robust_address: Address::new_actor(b"x") };
        let bytes = fvm_ipld_encoding::to_vec(&created).unwrap();
        assert_eq!(created_miner(&bytes), Some(ActorId(1234)));
        assert_eq!(created_miner(b"rubbish"), None);
    }
}
