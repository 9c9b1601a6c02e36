//! `sectors list|show|abort|release`.

use super::{
    args::{SectorArgs, SectorsCommand},
    remote,
};
use crate::{
    config::manager::Home,
    exit::{Exit, Failure},
    output::{Printer, Render, table},
};
use anyhow::anyhow;
use damocles_core::{Context, SectorId, allocator::Outcome};
use damocles_seal::{
    rpc::damocles::{AbortSector, ListSectors, ReleaseSector, ShowSector},
    sector_state::{SectorDetail, SectorSummary},
};
use serde::Serialize;
use std::fmt::Write as _;

/// Asks the manager of this home.
///
/// # Errors
///
/// It does not answer, does not know the sector, or refuses, or the operator does.
pub(super) async fn run(command: &SectorsCommand, home: &Home, printer: Printer, cx: &Context) -> Result<(), Failure> {
    match command {
        SectorsCommand::List => {
            let client = remote::client(remote::address(home)?)?;
            printer.data(&Listed(client.ask::<ListSectors>(&[]).await?))
        }
        SectorsCommand::Show(SectorArgs { sector }) => printer.data(&Shown(known(home, *sector).await?)),
        SectorsCommand::Release(args) => {
            let sector = args.sector.sector;
            args.consent.possible()?;
            let lease = lease(&known(home, sector).await?.summary);
            let plan = format!(
                "This will end the lease of {sector}: {lease}.\n  \
                 note     without a stored replica the sector is given up, and its number is burnt\n  \
                 note     a worker that still lives loses what it sealed of it"
            );
            args.consent.ask(printer, &plan, cx).await?;
            match remote::ask::<ReleaseSector>(home, &(sector,)).await? {
                Outcome::Handed => printer.note(format_args!(
                    "the lease of {sector} ended; its replica and its messages stand. `sectors abort` gives it up"
                )),
                _ => printer.note(format_args!("the lease of {sector} ended and the sector is given up")),
            }
            Ok(())
        }
        SectorsCommand::Abort(args) => {
            let sector = args.sector.sector;
            args.consent.possible()?;
            let summary = known(home, sector).await?.summary;
            let done = summary.stage_done.as_deref().unwrap_or("nothing");
            let plan = format!(
                "This will give {sector} up, whose worker {} has done: {done}.\n  \
                 note     its number is burnt, its data goes to another sector",
                lease(&summary)
            );
            args.consent.ask(printer, &plan, cx).await?;
            remote::ask::<AbortSector>(home, &(sector,)).await?;
            printer.note(format_args!(
                "{sector} is given up; its worker removes what it sealed, a parked one once it is resumed"
            ));
            Ok(())
        }
    }
}

async fn known(home: &Home, sector: SectorId) -> Result<SectorDetail, Failure> {
    let detail = remote::client(remote::address(home)?)?.ask::<ShowSector>(&(sector,)).await?;
    detail.ok_or_else(|| Failure::new(Exit::Failed, anyhow!("the manager does not know {sector}")))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Listed(Vec<SectorSummary>);

impl Render for Listed {
    fn text(&self, color: bool) -> String {
        let header = ["SECTOR", "DONE", "NEXT", "LEASE", "REPLICA", "LAST ERROR"];
        let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
        let rows = self.0.iter().map(|s| {
            [
                s.sector.to_string(),
                text(&s.stage_done),
                text(&s.stage_next),
                lease(s),
                text(&s.replica),
                text(&s.last_error),
            ]
        });
        table(&header, rows, color)
    }
}

/// Who holds a sector, and whether it is heard from.
fn lease(summary: &SectorSummary) -> String {
    let lease = &summary.lease;
    match &lease.ended {
        Some(outcome) => outcome.clone(),
        None if lease.silent => format!("{} (silent)", lease.worker),
        None => lease.worker.clone(),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(SectorDetail);

impl Render for Shown {
    fn text(&self, color: bool) -> String {
        let mut text = Listed(vec![self.0.summary.clone()]).text(color);
        let events = self.0.events.iter().map(|e| {
            let what = serde_json::to_string(&e.event).unwrap_or_default();
            [e.seq.to_string(), e.at.0.to_string(), what]
        });
        text.push_str("\n\n");
        for attempt in &self.0.attempts {
            if let Some(trouble) = &attempt.trouble {
                let _ = writeln!(text, "message `{}` does not move: {trouble}\n", attempt.key);
            }
        }
        text.push_str(&table(&["SEQ", "AT (ms)", "EVENT"], events, color));
        text
    }
}
