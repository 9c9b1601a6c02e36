//! A miner's own books.

use super::{Books, Faults, Totals, partition};
use crate::devnet::actors::{Actor, load};
use fil_actor_miner_state::v18::{Deadline, PRECOMMIT_CONFIG, PowerPair, PreCommitMap, SectorOnChainInfo, State};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_amt::Amt;
use fvm_ipld_bitfield::BitField;
use fvm_shared::{ActorID, econ::TokenAmount, sector::SectorSize};
use std::collections::BTreeMap;

/// The sectors of a miner by number.
pub(super) type Sectors = BTreeMap<u64, SectorOnChainInfo>;

/// What the deadlines of a miner add up to.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) power: PowerPair,
    pub(super) live: u64,
    /// What is pledged for live sectors, and for those whose end is not settled yet.
    pub(super) pledge: TokenAmount,
    /// The sectors that were seen in a partition.
    pub(super) placed: BitField,
}

/// Looks a miner through.
pub(super) fn totals(books: &Books<'_>, id: ActorID, actor: &Actor) -> Result<Totals, ActorError> {
    let state: State = load(books.store, &actor.state)?;
    let info = state.get_info(books.store).map_err(unreadable)?;
    let mut sectors = Sectors::new();
    state
        .for_each_sector(books.store, |sector| {
            sectors.insert(sector.sector_number, sector.clone());
            Ok(())
        })
        .map_err(unreadable)?;
    let mut faults = Faults::at(format_args!("miner t0{id}"));
    let mut sums = Sums::default();
    let deadlines = state.load_deadlines(books.store)?;
    for index in 0..books.policy.wpost_period_deadlines {
        let deadline = deadlines.load_deadline(books.store, index)?;
        let mut at = Faults::at(format_args!("miner t0{id} deadline {index}"));
        check_deadline(books, &state, index, &deadline, &sectors, info.sector_size, &mut sums, &mut at)?;
        faults.found.append(&mut at.found);
    }
    let numbers =
        BitField::try_from_bits(sectors.keys().copied()).map_err(|e| unreadable(anyhow::Error::msg(e.to_string())))?;
    faults.same("the set of sectors that are in no partition", &(&numbers - &sums.placed), &BitField::new());
    let pre_commits = check_pre_commits(books, &state, &numbers, &mut faults)?;
    let vesting = state.vesting_funds.load(books.store)?;
    let locked = vesting.iter().map(|fund| &fund.amount).sum::<TokenAmount>();
    faults.same("locked funds", &state.locked_funds, &locked);
    faults.same("initial pledge", &state.initial_pledge, &sums.pledge);
    let deadline = state.deadline_info(books.policy, books.epoch + 1);
    Ok(Totals {
        power: sums.power,
        pledged: &state.initial_pledge + &state.locked_funds,
        initial_pledge: state.initial_pledge.clone(),
        needs_cron: sums.live > 0 || pre_commits,
        cron_active: state.deadline_cron_active,
        early_terminations: !state.early_terminations.is_empty(),
        next_deadline_end: deadline.last(),
        found: faults.found,
    })
}

pub(super) fn unreadable(e: anyhow::Error) -> ActorError {
    actor_error_v18!(illegal_state, "unreadable state: {}", e)
}

/// Deposits belong to pre-commits, each of which expires some time. Says whether there are any.
fn check_pre_commits(
    books: &Books<'_>,
    state: &State,
    sectors: &BitField,
    faults: &mut Faults,
) -> Result<bool, ActorError> {
    let mut deposits = TokenAmount::default();
    let mut numbers = BitField::new();
    PreCommitMap::load(books.store, &state.pre_committed_sectors, PRECOMMIT_CONFIG, "pre-commits")?.for_each(
        |number, pre_commit| {
            deposits += &pre_commit.pre_commit_deposit;
            numbers.set(number);
            Ok(())
        },
    )?;
    faults.same("pre-commit deposits", &state.pre_commit_deposits, &deposits);
    let mut expiring = BitField::new();
    let queue: Amt<BitField, _> =
        Amt::load(&state.pre_committed_sectors_cleanup, books.store).map_err(|e| unreadable(e.into()))?;
    queue
        .for_each(|_, set: &BitField| {
            expiring |= set;
            Ok(())
        })
        .map_err(|e| unreadable(e.into()))?;
    faults.same("the set of pre-commits that never expire", &(&numbers - &expiring), &BitField::new());
    let allocated: BitField = load(books.store, &state.allocated_sectors)?;
    let used = &numbers | sectors;
    faults.same("the set of numbers that were never allocated", &(&used - &allocated), &BitField::new());
    faults.same("the set of sectors that are pre-committed too", &(&numbers & sectors), &BitField::new());
    Ok(!numbers.is_empty())
}

#[expect(clippy::too_many_arguments, reason = "a deadline is checked against all the books of its miner")]
fn check_deadline(
    books: &Books<'_>,
    state: &State,
    index: u64,
    deadline: &Deadline,
    sectors: &Sectors,
    size: SectorSize,
    sums: &mut Sums,
    faults: &mut Faults,
) -> Result<(), ActorError> {
    let quant = state.quant_spec_for_deadline(books.policy, index);
    let mut all = partition::Sums::default();
    let mut expirations: BTreeMap<u64, BitField> = BTreeMap::new();
    let mut early = BitField::new();
    let mut partitions = Vec::new();
    deadline
        .for_each(books.store, |number, partition| {
            partitions.push((number, partition.clone()));
            Ok(())
        })
        .map_err(unreadable)?;
    for (number, partition) in partitions {
        let mut at = Faults::at(format_args!("{} partition {number}", faults.at));
        at.unless(!sums.placed.contains_any(&partition.sectors), || "a sector is in another partition too".to_owned());
        sums.placed |= &partition.sectors;
        let found = partition::check(books, &partition, sectors, size, quant, &mut at)?;
        for epoch in &found.epochs {
            expirations.entry(*epoch).or_default().set(number);
        }
        if found.early_terminated {
            early.set(number);
        }
        sums.power += &partition.active_power();
        sums.pledge += &found.pledge;
        all.add(found);
        faults.found.append(&mut at.found);
    }
    sums.live += all.live;
    faults.same("live sectors", &deadline.live_sectors, &all.live);
    faults.same("total sectors", &deadline.total_sectors, &all.total);
    faults.same("faulty power", &deadline.faulty_power, &all.faulty_power);
    faults.same("live power", &deadline.live_power, &all.live_power);
    faults.same("daily fee", &deadline.daily_fee, &all.daily_fee);
    faults.same("what its expirations take from the daily fee", &all.fee_deduction, &all.daily_fee);
    let unsettled = &early - &deadline.early_terminations;
    faults.same("the set of partitions whose early terminations nobody settles", &unsettled, &BitField::new());
    faults.unless(early.is_empty() || state.early_terminations.get(index), || {
        "nobody knows of its early terminations".to_owned()
    });
    let queue: Amt<BitField, _> =
        Amt::load(&deadline.expirations_epochs, books.store).map_err(|e| unreadable(e.into()))?;
    for (epoch, partitions) in expirations {
        let queued = queue.get(epoch).map_err(|e| unreadable(e.into()))?.cloned().unwrap_or_default();
        let missing = &partitions - &queued;
        faults.same(&format!("the set of partitions that epoch {epoch} forgets"), &missing, &BitField::new());
    }
    Ok(())
}
