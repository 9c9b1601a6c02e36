//! Who gets what a miner pays out (FIP-0029).

use super::{addresses, encode, invocation::Invocation};
use fil_actor_miner_state::v18::{
    ActiveBeneficiary, ChangeBeneficiaryParams, GetBeneficiaryReturn, MinerInfo, PendingBeneficiaryChange,
};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{address::Address, clock::ChainEpoch, econ::TokenAmount};
use num_traits::Zero;

pub(super) fn get(call: &Invocation<'_, '_>) -> Result<RawBytes, ActorError> {
    let info = call.info(&call.state()?)?;
    encode(&GetBeneficiaryReturn {
        active: ActiveBeneficiary { beneficiary: info.beneficiary, term: info.beneficiary_term },
        proposed: info.pending_beneficiary_term,
    })
}

/// The owner proposes; the beneficiary and the nominee approve by saying the same.
pub(super) fn change(call: &mut Invocation<'_, '_>, params: ChangeBeneficiaryParams) -> Result<RawBytes, ActorError> {
    let caller = Address::new_id(call.caller);
    let nominee =
        call.world.resolve(&params.new_beneficiary)?.map(Address::new_id).ok_or_else(|| {
            actor_error_v18!(illegal_argument, "unable to resolve address: {}", params.new_beneficiary)
        })?;
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    if caller == info.owner {
        propose(&mut info, call.world.epoch, nominee, &params)?;
    } else {
        check_approval(&info, caller, nominee, &params)?;
    }
    approve(&mut info, caller, nominee);
    addresses::save(call, &mut state, &info)
}

fn propose(
    info: &mut MinerInfo,
    epoch: ChainEpoch,
    nominee: Address,
    params: &ChangeBeneficiaryParams,
) -> Result<(), ActorError> {
    let quota = &params.new_quota;
    if nominee != info.owner {
        if !quota.is_positive() {
            return Err(actor_error_v18!(illegal_argument, "beneficial quota {} must bigger than zero", quota));
        }
    } else if !quota.is_zero() {
        return Err(actor_error_v18!(illegal_argument, "owner beneficial quota {} must be zero", quota));
    } else if params.new_expiration != 0 {
        return Err(actor_error_v18!(
            illegal_argument,
            "owner beneficial expiration {} must be zero",
            params.new_expiration
        ));
    }
    let mut pending = PendingBeneficiaryChange::new(nominee, quota.clone(), params.new_expiration);
    // A beneficiary whose term is over is not asked.
    pending.approved_by_beneficiary = info.beneficiary_term.available(epoch).is_zero();
    info.pending_beneficiary_term = Some(pending);
    Ok(())
}

fn check_approval(
    info: &MinerInfo,
    caller: Address,
    nominee: Address,
    params: &ChangeBeneficiaryParams,
) -> Result<(), ActorError> {
    let Some(pending) = &info.pending_beneficiary_term else {
        return Err(actor_error_v18!(forbidden, "No changeBeneficiary proposal exists"));
    };
    if caller != info.beneficiary && caller != pending.new_beneficiary {
        return Err(actor_error_v18!(
            forbidden,
            "message caller {} is neither proposal beneficiary {} nor current beneficiary {}",
            caller,
            params.new_beneficiary,
            info.beneficiary
        ));
    }
    if pending.new_beneficiary != nominee {
        return Err(actor_error_v18!(
            illegal_argument,
            "new beneficiary address must be equal expect {}, but got {}",
            pending.new_beneficiary,
            params.new_beneficiary
        ));
    }
    if pending.new_quota != params.new_quota {
        return Err(actor_error_v18!(
            illegal_argument,
            "new beneficiary quota must be equal expect {}, but got {}",
            pending.new_quota,
            params.new_quota
        ));
    }
    if pending.new_expiration != params.new_expiration {
        return Err(actor_error_v18!(
            illegal_argument,
            "new beneficiary expire date must be equal expect {}, but got {}",
            pending.new_expiration,
            params.new_expiration
        ));
    }
    Ok(())
}

/// Notes who agrees, and makes the change once both do.
fn approve(info: &mut MinerInfo, caller: Address, nominee: Address) {
    let Some(mut pending) = info.pending_beneficiary_term.take() else { return };
    pending.approved_by_beneficiary |= caller == info.beneficiary;
    pending.approved_by_nominee |= caller == nominee;
    if !(pending.approved_by_beneficiary && pending.approved_by_nominee) {
        info.pending_beneficiary_term = Some(pending);
        return;
    }
    if nominee != info.beneficiary {
        info.beneficiary_term.used_quota = TokenAmount::zero();
    }
    info.beneficiary = nominee;
    info.beneficiary_term.quota = pending.new_quota;
    info.beneficiary_term.expiration = pending.new_expiration;
}
