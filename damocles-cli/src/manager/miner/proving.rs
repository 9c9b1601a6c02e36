//! Deadlines, partitions and the sectors in them.

use super::{
    super::{
        act::{self, Act},
        desk::{Desk, When},
    },
    args::{CompactArgs, MinerArgs, PartitionsArgs, SectorsArgs},
};
use crate::{
    exit::{Exit, Failure},
    output::{Render, table},
};
use anyhow::anyhow;
use damocles_core::{
    Address, DeadlineIndex, PartitionIndex, SectorNumber, SectorSet, TokenAmount,
    chain::{Call, CompactPartitions, PartitionState},
};
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Debug, Serialize)]
struct Deadlines {
    miner: Address,
    head: When,
    deadlines: Vec<Deadline>,
}

#[derive(Debug, Serialize)]
struct Deadline {
    index: DeadlineIndex,
    current: bool,
    open: When,
    close: When,
    partitions: usize,
    proven: usize,
    live: usize,
    faulty: usize,
    recovering: usize,
    daily_fee: TokenAmount,
}

impl Render for Deadlines {
    fn text(&self, color: bool) -> String {
        let rows = self.deadlines.iter().map(|d| {
            let index = if d.current { format!("{} (open)", d.index) } else { d.index.to_string() };
            [
                index,
                d.open.to_string(),
                d.close.to_string(),
                d.partitions.to_string(),
                d.proven.to_string(),
                d.live.to_string(),
                d.faulty.to_string(),
                d.recovering.to_string(),
                d.daily_fee.to_string(),
            ]
        });
        let header =
            ["DEADLINE", "OPENS", "CLOSES", "PARTITIONS", "PROVEN", "LIVE", "FAULTY", "RECOVERING", "DAILY FEE"];
        format!("{} at epoch {}\n{}", self.miner, self.head, table(&header, rows, color))
    }
}

fn sum(partitions: &[PartitionState], of: impl Fn(&PartitionState) -> &SectorSet) -> usize {
    partitions.iter().map(|partition| of(partition).len()).sum()
}

/// `miner deadlines`.
pub(super) async fn deadlines(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner)?;
    let found = desk.node.deadlines(&desk.head, id, None).await?;
    let deadlines = found.iter().map(|d| Deadline {
        index: d.index,
        current: d.current,
        open: desk.when(d.open),
        close: desk.when(d.close),
        partitions: d.partitions.len(),
        proven: d.proven.len(),
        live: sum(&d.partitions, |p| &p.live),
        faulty: sum(&d.partitions, |p| &p.faulty),
        recovering: sum(&d.partitions, |p| &p.recovering),
        daily_fee: d.daily_fee,
    });
    let deadlines = deadlines.collect();
    desk.printer.data(&Deadlines { miner: desk.name(id), head: desk.when(desk.head.epoch), deadlines })
}

#[derive(Debug, Serialize)]
struct Partitions {
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    deadline: DeadlineIndex,
    partition: u64,
    proven: bool,
    #[serde(flatten)]
    sectors: PartitionState,
}

impl Render for Partitions {
    fn text(&self, color: bool) -> String {
        let rows = self.partitions.iter().map(|p| {
            [
                p.deadline.to_string(),
                p.partition.to_string(),
                if p.proven { "yes" } else { "no" }.to_owned(),
                p.sectors.all.len().to_string(),
                p.sectors.live.len().to_string(),
                p.sectors.active.len().to_string(),
                numbers(&p.sectors.faulty),
                numbers(&p.sectors.recovering),
            ]
        });
        table(&["DEADLINE", "PARTITION", "PROVEN", "ALL", "LIVE", "ACTIVE", "FAULTY", "RECOVERING"], rows, color)
    }
}

/// The first few numbers of a set; `--json` has all.
fn numbers(set: &SectorSet) -> String {
    const SHOWN: usize = 8;
    if set.is_empty() {
        return "-".to_owned();
    }
    let first = set.iter().take(SHOWN).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    if set.len() > SHOWN { format!("{first},... ({})", set.len()) } else { first }
}

/// `miner partitions`.
pub(super) async fn partitions(desk: &Desk<'_>, args: PartitionsArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner.miner)?;
    let mut partitions = Vec::new();
    for deadline in desk.node.deadlines(&desk.head, id, args.deadline).await? {
        for (number, sectors) in (0..).zip(deadline.partitions) {
            let proven = deadline.proven.contains(&number);
            partitions.push(Partition { deadline: deadline.index, partition: number, proven, sectors });
        }
    }
    desk.printer.data(&Partitions { partitions })
}

#[derive(Debug, Serialize)]
struct Sectors {
    sectors: Vec<Sector>,
}

#[derive(Debug, Serialize)]
struct Sector {
    number: SectorNumber,
    seal_proof: String,
    activation: When,
    expiration: When,
    initial_pledge: TokenAmount,
}

impl Render for Sectors {
    fn text(&self, color: bool) -> String {
        let rows = self.sectors.iter().map(|s| {
            [
                s.number.to_string(),
                s.activation.to_string(),
                s.expiration.to_string(),
                s.initial_pledge.to_string(),
                s.seal_proof.clone(),
            ]
        });
        table(&["NUMBER", "ACTIVE SINCE", "EXPIRES", "PLEDGE", "PROOF"], rows, color)
    }
}

/// `miner sectors`.
pub(super) async fn sectors(desk: &Desk<'_>, args: &SectorsArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner.miner)?;
    let only: Option<SectorSet> = (!args.numbers.is_empty()).then(|| args.numbers.iter().copied().collect());
    let found = desk.node.sectors(&desk.head, id, only.as_ref()).await?;
    let sectors = found.iter().map(|s| Sector {
        number: s.number,
        seal_proof: format!("{:?}", s.seal_proof),
        activation: desk.when(s.activation),
        expiration: desk.when(s.expiration),
        initial_pledge: s.initial_pledge,
    });
    desk.printer.data(&Sectors { sectors: sectors.collect() })
}

#[derive(Debug, Serialize)]
struct Faults {
    faults: Vec<Fault>,
}

#[derive(Debug, Serialize)]
struct Fault {
    number: SectorNumber,
    deadline: DeadlineIndex,
    partition: u64,
    recovering: bool,
    proven_next: When,
}

impl Render for Faults {
    fn text(&self, color: bool) -> String {
        let rows = self.faults.iter().map(|f| {
            let state = if f.recovering { "recovering" } else { "faulty" };
            [
                f.number.to_string(),
                f.deadline.to_string(),
                f.partition.to_string(),
                state.to_owned(),
                f.proven_next.to_string(),
            ]
        });
        table(&["NUMBER", "DEADLINE", "PARTITION", "STATE", "WINDOW OPENS"], rows, color)
    }
}

/// `miner faults`.
pub(super) async fn faults(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let id = desk.miner(args.miner)?;
    let mut faults = Vec::new();
    for deadline in desk.node.deadlines(&desk.head, id, None).await? {
        for (partition, state) in (0..).zip(&deadline.partitions) {
            faults.extend(state.faulty.iter().map(|number| Fault {
                number,
                deadline: deadline.index,
                partition,
                recovering: state.recovering.contains(number),
                proven_next: desk.when(deadline.open),
            }));
        }
    }
    desk.printer.data(&Faults { faults })
}

/// `miner compact`.
pub(super) async fn compact(desk: &Desk<'_>, args: &CompactArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let miner = desk.node.miner(&desk.head, id).await?;
    let found = desk.node.deadlines(&desk.head, id, Some(args.deadline)).await?;
    let there: Vec<_> = found.iter().flat_map(|d| (0..).map(PartitionIndex).zip(&d.partitions)).collect();
    let terminated = |p: &PartitionState| p.all.len().saturating_sub(p.live.len());
    let partitions: BTreeSet<_> = if args.partitions.is_empty() {
        there.iter().filter(|(_, p)| terminated(p) > 0).map(|(index, _)| *index).collect()
    } else {
        args.partitions.iter().copied().collect()
    };
    let name = desk.name(id);
    if partitions.is_empty() {
        let error = anyhow!("no partition of deadline {} of {name} has terminated sectors", args.deadline);
        return Err(Failure::new(Exit::Failed, error).hint("`miner partitions` shows them: ALL above LIVE"));
    }
    if let Some(absent) = partitions.iter().find(|p| !there.iter().any(|(index, _)| index == *p)) {
        return Err(Failure::usage(format_args!("deadline {} of {name} has no partition {absent}", args.deadline)));
    }
    let gone: usize = there.iter().filter(|(index, _)| partitions.contains(index)).map(|(_, p)| terminated(p)).sum();
    let list = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let act = Act {
        what: format!("compact partitions {list} of deadline {} of {name}", args.deadline),
        stem: format!("compact/{id}/{}/{list}", args.deadline),
        call: Call::CompactPartitions(CompactPartitions { miner: id, deadline: args.deadline, partitions }),
        remarks: vec![format!("{gone} terminated sectors are removed; live ones may move to other partitions")],
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}
