//! What a miner is and has.

use super::{
    super::desk::{Desk, When},
    args::MinerArgs,
};
use crate::{exit::Failure, output::Render};
use damocles_chain::MinerFunds;
use damocles_core::{Address, TokenAmount};
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Debug, Serialize)]
pub(in crate::manager) struct Info {
    miner: Address,
    owner: Address,
    pending_owner: Option<Address>,
    worker: Address,
    new_worker: Option<NewWorker>,
    control: Vec<Address>,
    beneficiary: Address,
    term: Option<Term>,
    pending_beneficiary: Option<Proposed>,
    peer_id: Option<String>,
    multiaddrs: Vec<String>,
    sector_size: String,
    partition_sectors: u64,
    consensus_fault_until: Option<When>,
}

#[derive(Debug, Serialize)]
struct NewWorker {
    address: Address,
    from: When,
}

#[derive(Debug, Serialize)]
struct Term {
    quota: TokenAmount,
    used: TokenAmount,
    expiration: When,
}

#[derive(Debug, Serialize)]
struct Proposed {
    beneficiary: Address,
    quota: TokenAmount,
    expiration: When,
    approved_by_present: bool,
    approved_by_proposed: bool,
}

impl Render for Info {
    fn text(&self, _: bool) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<16}{value}");
        };
        line("miner", self.miner.to_string());
        line("owner", self.owner.to_string());
        if let Some(pending) = &self.pending_owner {
            line("proposed owner", pending.to_string());
        }
        line("worker", self.worker.to_string());
        if let Some(new) = &self.new_worker {
            line("new worker", format!("{} can be confirmed from epoch {} on", new.address, new.from));
        }
        line("control", joined(&self.control));
        line("beneficiary", self.beneficiary.to_string());
        if let Some(term) = &self.term {
            line("  quota", format!("{} of {} used, until {}", term.used, term.quota, term.expiration));
        }
        if let Some(new) = &self.pending_beneficiary {
            let agreed = |yes: bool| if yes { "has agreed" } else { "has not agreed" };
            line("  proposed", format!("{} for {} until {}", new.beneficiary, new.quota, new.expiration));
            line("", format!("the proposed one {}", agreed(new.approved_by_proposed)));
            line("", format!("the present one {}", agreed(new.approved_by_present)));
        }
        line("peer ID", self.peer_id.clone().unwrap_or_else(|| "-".to_owned()));
        line("multiaddrs", joined(&self.multiaddrs));
        line("sector size", self.sector_size.clone());
        line("partition", format!("{} sectors at most", self.partition_sectors));
        if let Some(until) = &self.consensus_fault_until {
            line("may not mine", format!("until {until}, after a consensus fault"));
        }
        text
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.iter().map(T::to_string).collect::<Vec<_>>().join(", ") }
}

/// `miner info`.
pub(super) async fn info(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let miner = desk.node.miner(&desk.head, desk.miner(args.miner)?).await?;
    desk.printer.data(&Info {
        miner: desk.name(miner.miner),
        owner: desk.spell(&miner.owner),
        pending_owner: miner.pending_owner.as_ref().map(|a| desk.spell(a)),
        worker: desk.spell(&miner.worker),
        new_worker: miner
            .new_worker
            .map(|(address, epoch)| NewWorker { address: desk.spell(&address), from: desk.when(epoch) }),
        control: miner.control.iter().map(|a| desk.spell(a)).collect(),
        beneficiary: desk.spell(&miner.beneficiary),
        term: miner.term.map(|t| Term { quota: t.quota, used: t.used, expiration: desk.when(t.expiration) }),
        pending_beneficiary: miner.pending_beneficiary.map(|p| Proposed {
            beneficiary: desk.spell(&p.beneficiary),
            quota: p.quota,
            expiration: desk.when(p.expiration),
            approved_by_present: p.approved_by_present,
            approved_by_proposed: p.approved_by_proposed,
        }),
        peer_id: miner.peer_id,
        multiaddrs: miner.multiaddrs,
        sector_size: miner.sector_size.to_string(),
        partition_sectors: miner.partition_sectors,
        consensus_fault_until: miner.consensus_fault_until.map(|epoch| desk.when(epoch)),
    })
}

#[derive(Debug, Serialize)]
struct Power {
    miner: Address,
    raw_bytes: String,
    quality_adjusted_bytes: String,
    network_raw_bytes: String,
    network_quality_adjusted_bytes: String,
    may_win_blocks: bool,
}

impl Render for Power {
    fn text(&self, _: bool) -> String {
        format!(
            "miner              {}\nraw                {} of {}\nquality-adjusted   {} of {}\nmay win blocks     {}",
            self.miner,
            bytes(&self.raw_bytes),
            bytes(&self.network_raw_bytes),
            bytes(&self.quality_adjusted_bytes),
            bytes(&self.network_quality_adjusted_bytes),
            if self.may_win_blocks { "yes" } else { "no, the network asks for more power" }
        )
    }
}

/// Bytes in the largest unit of which there is one at least.
fn bytes(text: &str) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Ok(mut rest) = text.parse::<u128>() else { return text.to_owned() };
    let (mut unit, mut tenths) = (0, 0);
    while rest >= 1024 && unit + 1 < UNITS.len() {
        tenths = (rest % 1024) * 10 / 1024;
        rest /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if tenths == 0 { format!("{rest} {name}") } else { format!("{rest}.{tenths} {name}") }
}

/// `miner power`.
pub(super) async fn power(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner)?;
    let power = desk.node.power(&desk.head, id).await?;
    desk.printer.data(&Power {
        miner: desk.name(id),
        raw_bytes: power.miner_power.raw_byte_power.to_string(),
        quality_adjusted_bytes: power.miner_power.quality_adj_power.to_string(),
        network_raw_bytes: power.total_power.raw_byte_power.to_string(),
        network_quality_adjusted_bytes: power.total_power.quality_adj_power.to_string(),
        may_win_blocks: power.has_min_power,
    })
}

#[derive(Debug, Serialize)]
struct Balance {
    miner: Address,
    #[serde(flatten)]
    funds: MinerFunds,
}

impl Render for Balance {
    fn text(&self, _: bool) -> String {
        let f = &self.funds;
        format!(
            "miner                 {}\nbalance               {}\navailable             {}\nvesting               {}\n\
             initial pledge        {}\npre-commit deposits   {}\nfee debt              {}",
            self.miner, f.balance, f.available, f.vesting, f.initial_pledge, f.pre_commit_deposits, f.fee_debt
        )
    }
}

/// `miner balance`.
pub(super) async fn balance(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner)?;
    desk.printer.data(&Balance { miner: desk.name(id), funds: desk.node.funds(&desk.head, id).await? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (number, text) in [
            ("0", "0 B"),
            ("1023", "1023 B"),
            ("2048", "2 KiB"),
            ("34359738368", "32 GiB"),
            ("1649267441664", "1.5 TiB"),
            ("20282409603651670423947251286016", "17592186044416 EiB"),
            ("x", "x"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
