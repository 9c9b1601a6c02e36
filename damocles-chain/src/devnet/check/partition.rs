//! A partition's books.

use super::{
    Books, Faults,
    miner::{Sectors, unreadable},
};
use fil_actor_miner_state::v18::{
    ExpirationSet, Partition, PowerPair, QuantSpec, SectorOnChainInfo, qa_power_for_sector, raw_power_for_sector,
};
use fil_actors_shared::v18::ActorError;
use fvm_ipld_amt::Amt;
use fvm_ipld_bitfield::BitField;
use fvm_shared::{econ::TokenAmount, sector::SectorSize};

/// What partitions add up to.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) live: u64,
    pub(super) total: u64,
    pub(super) live_power: PowerPair,
    pub(super) faulty_power: PowerPair,
    pub(super) daily_fee: TokenAmount,
    pub(super) fee_deduction: TokenAmount,
    pub(super) pledge: TokenAmount,
    /// The epochs at which sectors expire.
    pub(super) epochs: Vec<u64>,
    pub(super) early_terminated: bool,
}

impl Sums {
    pub(super) fn add(&mut self, other: Self) {
        self.live += other.live;
        self.total += other.total;
        self.live_power += &other.live_power;
        self.faulty_power += &other.faulty_power;
        self.daily_fee += other.daily_fee;
        self.fee_deduction += other.fee_deduction;
        self.pledge += other.pledge;
    }
}

fn power(sectors: &Sectors, size: SectorSize, numbers: &BitField) -> PowerPair {
    let mut sum = PowerPair::zero();
    for sector in numbers.iter().filter_map(|n| sectors.get(&n)) {
        sum += &PowerPair::new(raw_power_for_sector(size), qa_power_for_sector(size, sector));
    }
    sum
}

fn total(sectors: &Sectors, numbers: &BitField, of: impl Fn(&SectorOnChainInfo) -> &TokenAmount) -> TokenAmount {
    numbers.iter().filter_map(|n| sectors.get(&n)).map(of).sum()
}

/// Looks a partition through.
pub(super) fn check(
    books: &Books<'_>,
    partition: &Partition,
    sectors: &Sectors,
    size: SectorSize,
    quant: QuantSpec,
    faults: &mut Faults,
) -> Result<Sums, ActorError> {
    faults.ok("state", partition.validate_state());
    let unknown: Vec<u64> = partition.sectors.iter().filter(|n| !sectors.contains_key(n)).collect();
    faults.same("the list of sectors that nobody knows", &unknown, &Vec::new());
    let live = partition.live_sectors();
    faults.same("live power", &partition.live_power, &power(sectors, size, &live));
    faults.same("faulty power", &partition.faulty_power, &power(sectors, size, &partition.faults));
    faults.same("recovering power", &partition.recovering_power, &power(sectors, size, &partition.recoveries));
    faults.same("unproven power", &partition.unproven_power, &power(sectors, size, &partition.unproven));
    let mut sums = Sums {
        live: live.len(),
        total: partition.sectors.len(),
        live_power: partition.live_power.clone(),
        faulty_power: partition.faulty_power.clone(),
        daily_fee: total(sectors, &live, |s| &s.daily_fee),
        pledge: total(sectors, &live, |s| &s.initial_pledge),
        ..Sums::default()
    };
    check_expirations(books, partition, sectors, size, quant, &mut sums, faults)?;
    let early: Amt<BitField, _> =
        Amt::load(&partition.early_terminated, books.store).map_err(|e| unreadable(e.into()))?;
    early
        .for_each(|_, set: &BitField| {
            sums.early_terminated |= !set.is_empty();
            // What is pledged for them comes free when their end is settled.
            sums.pledge += total(sectors, set, |s| &s.initial_pledge);
            faults.unless(partition.terminated.contains_all(set), || "a live sector ended early".to_owned());
            Ok(())
        })
        .map_err(|e| unreadable(e.into()))?;
    Ok(sums)
}

/// Each live sector expires once, at its own end or because it is faulty.
fn check_expirations(
    books: &Books<'_>,
    partition: &Partition,
    sectors: &Sectors,
    size: SectorSize,
    quant: QuantSpec,
    sums: &mut Sums,
    faults: &mut Faults,
) -> Result<(), ActorError> {
    let queue: Amt<ExpirationSet, _> =
        Amt::load(&partition.expirations_epochs, books.store).map_err(|e| unreadable(e.into()))?;
    let mut covered = BitField::new();
    queue
        .for_each(|epoch, set: &ExpirationSet| {
            sums.epochs.push(epoch);
            sums.fee_deduction += &set.fee_deduction;
            let both = &set.on_time_sectors | &set.early_sectors;
            let twice = covered.contains_any(&both) || set.on_time_sectors.contains_any(&set.early_sectors);
            faults.unless(!twice, || format!("a sector expires at {epoch} and at another time"));
            covered |= &both;
            let early_and_good = &set.early_sectors - &partition.faults;
            faults.same(
                &format!("sectors that end early at {epoch} without a fault"),
                &early_and_good,
                &BitField::new(),
            );
            for sector in set.on_time_sectors.iter().filter_map(|n| sectors.get(&n)) {
                let end = u64::try_from(quant.quantize_up(sector.expiration)).unwrap_or_default();
                faults.same(&format!("when sector {} expires", sector.sector_number), &epoch, &end);
            }
            let faulty = &both & &partition.faults;
            let active = &both - &faulty;
            faults.same(&format!("active power at {epoch}"), &set.active_power, &power(sectors, size, &active));
            faults.same(&format!("faulty power at {epoch}"), &set.faulty_power, &power(sectors, size, &faulty));
            let pledge = total(sectors, &set.on_time_sectors, |s| &s.initial_pledge);
            faults.same(&format!("pledge at {epoch}"), &set.on_time_pledge, &pledge);
            Ok(())
        })
        .map_err(|e| unreadable(e.into()))?;
    faults.same("the set of sectors that expire", &covered, &partition.live_sectors());
    Ok(())
}
