//! Hardware that one process at a time uses, on the whole machine.
//!
//! A worker that seals and a manager that proves may share a machine, and know nothing of each other. What either uses
//! for itself, a GPU for one task or CPUs for a child, it claims by a lock file in a directory that both have: the
//! kernel frees a claim with the process that holds it, however that ends. The file says who holds it, for what and
//! since when.
//!
//! [`Claims::try_claim`] never waits. Whoever has to wait registers a [`Want`], which keeps everybody of less urgency
//! from what it waits for, and tries again whenever [`Changes`] says that something was given back. A claimant that
//! cannot wait asks the holder to yield, see [`Asker`]; a holder answers by [`may_yield`].
//!
//! Nothing is polled: waiting is an inotify watch on the directory.

mod dir;
mod file;
mod gate;
mod want;
mod watch;

pub use gate::{ClaimGate, resources_of};
pub use want::Want;
pub use watch::Changes;

use async_trait::async_trait;
use damocles_core::{BoxError, Clock, GpuId, SectorId, Timestamp, pool::TaskKind};
use file::Held;
use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Something of this machine that one process at a time uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resource {
    /// A GPU.
    Gpu(GpuId),
    /// A CPU, by the kernel's number.
    Cpu(u16),
}

impl Resource {
    /// The name of its lock file. Whatever a driver may call a GPU, it stays a name in the directory.
    fn file_name(&self) -> String {
        match self {
            Self::Gpu(id) => {
                let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
                format!("gpu-{}", id.0.chars().take(100).map(plain).collect::<String>())
            }
            Self::Cpu(number) => format!("cpu-{number}"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(id) => write!(f, "GPU {id}"),
            Self::Cpu(number) => write!(f, "CPU {number}"),
        }
    }
}

/// How urgent a use is. Earlier is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// A proof whose deadline passes: it is late once and power is lost.
    Post,
    /// A seal proof: a late one costs time.
    C2,
    /// Trees, which CPUs can build too.
    Pc2,
    /// Everything else.
    Other,
}

impl Urgency {
    /// The urgency of a kind of task.
    pub fn of(kind: &TaskKind) -> Self {
        match kind.as_str() {
            "window_post" | "winning_post" | "wdpost_read" => Self::Post,
            "c2" | "snap_prove" => Self::C2,
            "pc2" | "snap_encode" | "tree_d" => Self::Pc2,
            _ => Self::Other,
        }
    }
}

/// What a claim is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The kind of task.
    pub kind: TaskKind,
    /// The sector that it is for, if it is for one.
    pub sector: Option<SectorId>,
}

/// Who holds something, as its lock file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The program, e.g. `worker w1`.
    pub program: String,
    /// Its process.
    pub pid: u32,
    /// The kind of task that it is used for.
    pub kind: TaskKind,
    /// The sector, if it is for one.
    pub sector: Option<SectorId>,
    /// Since when.
    pub since: Timestamp,
    /// The control socket at which the holder can be asked to yield.
    pub socket: Option<PathBuf>,
}

impl Holder {
    /// In words, with how long it has been held at `now`: `c2 of s-t01000-7 in worker w1 (pid 77) for 3m12s`.
    pub fn describe(&self, now: Timestamp) -> String {
        let sector = self.sector.map(|sector| format!(" of {sector}")).unwrap_or_default();
        format!("{}{sector} in {} (pid {}) for {}", self.kind, self.program, self.pid, short(now.since(self.since)))
    }
}

/// Hours, minutes and seconds, at most two of them.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

/// Whether a running use lets a more urgent one have what it holds. It is stopped for that and done again, so that only
/// tasks of minutes yield: the hours of a PC1 never do.
pub fn may_yield(held_for: &TaskKind, wanted_for: &TaskKind) -> bool {
    let cheap = matches!(Urgency::of(held_for), Urgency::C2 | Urgency::Pc2);
    cheap && Urgency::of(wanted_for) == Urgency::Post
}

/// Asks a holder to give back what it holds, at its control socket.
#[async_trait]
pub trait Asker: fmt::Debug + Send + Sync + 'static {
    /// Asks once. `Ok(true)` means that it will be given back; [`Changes`] tells when.
    ///
    /// # Errors
    ///
    /// The holder cannot be reached or does not answer.
    async fn ask(&self, holder: &Holder, resource: &Resource, wanted_for: &TaskKind) -> Result<bool, BoxError>;
}

/// Why something cannot be claimed now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Somebody holds it.
    #[error("{resource} is held{}", by(.holder.as_deref()))]
    Held {
        /// What.
        resource: Resource,
        /// By whom, if the lock file says it: it is empty for the moment between lock and first word.
        holder: Option<Box<Holder>>,
    },
    /// Somebody more urgent, or who came earlier, waits for it.
    #[error("{resource} is wanted by process {pid} first")]
    Wanted {
        /// What.
        resource: Resource,
        /// The process that waits.
        pid: u32,
    },
    /// The directory of claims fails.
    #[error("claim by `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of claims is one with which a stranger could keep a proof from its card.
    #[error("the directory of claims `{}` {why}", .dir.display())]
    Unsafe {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn by(holder: Option<&Holder>) -> String {
    holder.map(|h| format!(" by {} of {} (pid {})", h.kind, h.program, h.pid)).unwrap_or_default()
}

impl ClaimError {
    /// Whether waiting helps.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::Wanted { .. })
    }

    /// What can be done about it.
    pub fn hint(&self) -> Option<String> {
        let Self::Unsafe { dir, .. } = self else { return None };
        Some(format!(
            "give it to the user of this program (`chmod 700`); for programs of several users, make a group that they \
             are all in, and the directory for it as root: `install -d -m 2770 -o root -g GROUP {}`",
            dir.display()
        ))
    }
}

/// How long a claimant waits for the kernel before it looks by itself.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The claims of one program in the directory that it shares with others.
#[derive(Clone, Debug)]
pub struct Claims(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    program: String,
    socket: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

impl Claims {
    /// Claims in `dir`, which is made if it is missing, on behalf of `program`, which can be asked to yield at `socket`.
    ///
    /// Programs share claims by sharing the directory: the same user, or a directory that an administrator made for a
    /// group that all of them are in. Whoever can write there can hold every card, so that it has to be of root or of
    /// this user, writable for nobody else but a group that this process is in, and no link.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, or others can write to it.
    pub fn at(
        dir: impl Into<PathBuf>,
        program: impl Into<String>,
        socket: Option<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClaimError> {
        let dir = dir.into();
        dir::prepare(&dir)?;
        Ok(Self(Arc::new(Shared { dir, program: program.into(), socket, clock })))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Claims all of `wanted` or nothing, without waiting. The claim is given back when it is dropped.
    ///
    /// `want` is the caller's own place in the queue, if it has one: without, everybody who waits goes first.
    ///
    /// # Errors
    ///
    /// Something of it is held, or wanted by somebody who goes first.
    pub fn try_claim(&self, wanted: &[Resource], used: &Use, want: Option<&Want>) -> Result<Claim, ClaimError> {
        self.restore()?;
        let mut wanted: Vec<&Resource> = wanted.iter().collect();
        wanted.sort();
        wanted.dedup();
        // What was refused last time goes first: a try that fails must not hold anything meanwhile, or two claimants
        // would wake each other for ever.
        if let Some(refused) = want.and_then(Want::refused) {
            wanted.sort_by_key(|resource| **resource != refused);
        }
        let urgency = Urgency::of(&used.kind);
        let mut held = Vec::with_capacity(wanted.len());
        for resource in &wanted {
            match self.lock(resource, urgency, want) {
                Ok(lock) => held.push(lock),
                Err(error) => {
                    if let Some(want) = want {
                        want.refuse((*resource).clone());
                    }
                    return Err(error);
                }
            }
        }
        let holder = Holder {
            program: self.0.program.clone(),
            pid: std::process::id(),
            kind: used.kind.clone(),
            sector: used.sector,
            since: self.0.clock.now(),
            socket: self.0.socket.clone(),
        };
        held.iter_mut().for_each(|held| held.say(&holder));
        Ok(Claim { resources: wanted.into_iter().cloned().collect(), _held: held })
    }

    fn lock(&self, resource: &Resource, urgency: Urgency, want: Option<&Want>) -> Result<Held, ClaimError> {
        let first = || want::first(&self.0.dir, resource, urgency, want);
        let wanted = |pid| ClaimError::Wanted { resource: resource.clone(), pid };
        if let Some(pid) = first()? {
            return Err(wanted(pid));
        }
        let path = self.0.dir.join(resource.file_name());
        let held = Held::lock(&path)?.ok_or_else(|| {
            let holder = file::read_holder(&path).map(Box::new);
            ClaimError::Held { resource: resource.clone(), holder }
        })?;
        match first()? {
            // It came between the two lines above and has found this lock: what is given back here wakes it.
            Some(pid) => Err(wanted(pid)),
            None => Ok(held),
        }
    }

    /// Whether somebody in another process goes first for any of `wanted`.
    pub(crate) fn others_first(
        &self,
        wanted: &[Resource],
        used: &Use,
        want: Option<&Want>,
    ) -> Result<bool, ClaimError> {
        for resource in wanted {
            let first = want::first(&self.0.dir, resource, Urgency::of(&used.kind), want)?;
            if first.is_some_and(|pid| pid != std::process::id()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a holder is this program itself. Process numbers alone repeat in containers.
    pub(crate) fn is_own(&self, holder: &Holder) -> bool {
        holder.pid == std::process::id() && holder.program == self.0.program
    }

    /// Takes a place in the queue for `wanted`: nobody less urgent, and nobody who comes later, gets any of it before.
    ///
    /// # Errors
    ///
    /// The directory fails.
    pub fn want(&self, wanted: &[Resource], used: &Use) -> Result<Want, ClaimError> {
        self.restore()?;
        Want::register(&self.0.dir, wanted, Urgency::of(&used.kind), self.0.clock.now())
    }

    /// Who holds something at this moment.
    pub fn holder(&self, resource: &Resource) -> Option<Holder> {
        let path = self.0.dir.join(resource.file_name());
        match Held::lock(&path) {
            // Nobody: what the file says is of a dead process.
            Ok(Some(_)) | Err(_) => None,
            Ok(None) => file::read_holder(&path),
        }
    }

    /// Who seems to hold something: what its file says, if that process lives. It takes no lock, and so proves nothing.
    pub fn seen_holder(&self, resource: &Resource) -> Option<Holder> {
        let holder = file::read_holder(&self.0.dir.join(resource.file_name()))?;
        Path::new("/proc").join(holder.pid.to_string()).exists().then_some(holder)
    }

    /// The time by which holders are described.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Watches for what is given back. Begun before a try, it misses nothing after it.
    ///
    /// # Errors
    ///
    /// The kernel has no watch left.
    pub fn changes(&self) -> Result<Changes, ClaimError> {
        self.restore()?;
        Changes::of(&self.0.dir)
    }

    /// Makes the directory again if it is gone: it may lie in the memory of a session, which ends before the worker does.
    fn restore(&self) -> Result<(), ClaimError> {
        if self.0.dir.exists() { Ok(()) } else { dir::prepare(&self.0.dir) }
    }

    /// Claims all of `wanted`, as soon as it can be had.
    ///
    /// Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    ///
    /// The directory fails.
    pub async fn claim(&self, wanted: &[Resource], used: &Use) -> Result<Claim, ClaimError> {
        let mut changes = self.changes()?;
        let mut want = None;
        loop {
            match self.try_claim(wanted, used, want.as_ref()) {
                Err(error) if error.passes() => {}
                done => return done,
            }
            if want.is_none() {
                want = Some(self.want(wanted, used)?);
                continue;
            }
            // The kernel tells; should it not, e.g. because it closed the files of a dead process in another order, the
            // wait ends all the same.
            if let Ok(told) = tokio::time::timeout(LOOK_AGAIN, changes.next()).await {
                told?;
            }
        }
    }
}

/// What was claimed, given back when dropped.
#[derive(Debug)]
pub struct Claim {
    resources: Vec<Resource>,
    _held: Vec<Held>,
}

impl Claim {
    /// What it holds.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minutes_are_given_up_and_only_for_a_proof() {
        let kinds = ["window_post", "c2", "pc2", "pc1", "add_pieces"].map(TaskKind::new);
        let yields: Vec<_> = kinds
            .iter()
            .flat_map(|held| kinds.iter().map(move |wanted| (held, wanted)))
            .filter(|(held, wanted)| may_yield(held, wanted))
            .map(|(held, wanted)| (held.as_str(), wanted.as_str()))
            .collect();
        assert_eq!(yields, [("c2", "window_post"), ("pc2", "window_post")]);
    }

    #[test]
    fn a_holder_is_described_for_people() {
        let holder = Holder {
            program: "worker w1".to_owned(),
            pid: 77,
            kind: TaskKind::new("c2"),
            sector: "s-t01000-7".parse().ok(),
            since: Timestamp(1_000),
            socket: None,
        };
        assert_eq!(holder.describe(Timestamp(193_000)), "c2 of s-t01000-7 in worker w1 (pid 77) for 3m12s");
        assert_eq!(short(Duration::from_secs(7_260)), "2h1m");
    }

    #[test]
    fn no_name_of_a_gpu_leads_out_of_the_directory() {
        let name = Resource::Gpu(GpuId("../../etc/passwd\0".to_owned())).file_name();
        assert_eq!(name, "gpu-______etc_passwd_");
    }
}
