//! [`PoStLoop`].

use crate::{heads::Heads, plan::partitions_of};
use damocles_core::{
    ActorId, CancellationToken, Context, Epoch, Event, PartitionIndex, Recovery,
    chain::{ChainClient, TipsetRef},
    post::{Duty, DutyKind, Fulfilled, PoStError, PoStErrorKind, PoStScheduler, ProvingView},
};
use std::{
    collections::{BTreeMap, HashMap},
    mem::discriminant,
    sync::Arc,
    time::Duration,
};
use tokio::task::{Id, JoinError, JoinSet};

/// Keeps every due duty of some miners going.
///
/// At each head it takes a view of every miner, plans, and begins what is not under way. Each duty is one task, which
/// tries again until the duty is done or overdue: neither a chain that is away nor a prover that dies ends it. A miner
/// whose view is slow delays no other.
#[derive(Clone, Debug)]
pub struct PoStLoop {
    scheduler: Arc<dyn PoStScheduler>,
    chain: Arc<dyn ChainClient>,
    miners: Vec<ActorId>,
    options: LoopOptions,
}

/// How often a [`PoStLoop`] tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopOptions {
    /// The wait after a first failure; it doubles with each. An epoch ends it earlier where epochs are short.
    pub first_retry: Duration,
    /// The longest wait between two tries.
    pub longest_retry: Duration,
    /// How many epochs after its end a duty that is planned all the same is taken up again, e.g. because its sectors did
    /// not read well.
    pub recheck: i64,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { first_retry: Duration::from_secs(1), longest_retry: Duration::from_secs(60), recheck: 10 }
    }
}

impl PoStLoop {
    /// A loop over the miners given.
    pub fn new(
        scheduler: Arc<dyn PoStScheduler>,
        chain: Arc<dyn ChainClient>,
        miners: impl IntoIterator<Item = ActorId>,
    ) -> Self {
        Self { scheduler, chain, miners: miners.into_iter().collect(), options: LoopOptions::default() }
    }

    /// With other waits.
    #[must_use]
    pub fn with_options(self, options: LoopOptions) -> Self {
        Self { options, ..self }
    }

    /// Runs until `drain` or `cx` is cancelled: after `drain` no duty begins and those under way go on to their end,
    /// `cx` stops them. When it returns, no task that it began is left; when it is dropped, they are aborted.
    pub async fn run(&self, cx: &Context, drain: &CancellationToken) {
        let mut board = Board::new(cx);
        let mut heads = Heads::of(&*self.chain);
        while !cx.cancel.is_cancelled() && !drain.is_cancelled() {
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => break,
                () = drain.cancelled() => break,
                Some(ended) = board.tasks.join_next_with_id() => self.take(&mut board, ended, cx),
                head = heads.next(cx) => match head {
                    Some(head) => self.see(&mut board, &head),
                    None => {
                        let pause = tokio::time::sleep(self.options.first_retry);
                        drain.run_until_cancelled(cx.cancel.run_until_cancelled(pause)).await;
                        heads = Heads::of(&*self.chain);
                    }
                },
            }
        }
        board.looking.cancel.cancel();
        while let Some(ended) = board.tasks.join_next_with_id().await {
            self.take(&mut board, ended, cx);
        }
    }

    fn see(&self, board: &mut Board, head: &TipsetRef) {
        board.now = head.epoch;
        for miner in &self.miners {
            if let Some(next) = board.viewing.get_mut(miner) {
                *next = Some(head.clone());
            } else {
                self.begin_view(board, *miner, head.clone());
            }
        }
    }

    fn begin_view(&self, board: &mut Board, miner: ActorId, head: TipsetRef) {
        let (this, cx) = (self.clone(), board.looking.clone());
        let task = board.tasks.spawn(async move { Ended::View(this.look(miner, &head, &cx).await.map(Box::new)) });
        board.work.insert(task.id(), Work::View(miner));
        board.viewing.insert(miner, None);
    }

    /// Takes a view, a few times if need be; the next head brings another chance.
    async fn look(&self, miner: ActorId, head: &TipsetRef, cx: &Context) -> Option<ProvingView> {
        const TRIES: usize = 4;
        let mut pauses = Pauses::new(&self.options);
        for _ in 0..TRIES {
            match cx.cancel.run_until_cancelled(self.scheduler.view(miner, head)).await? {
                Ok(view) => return Some(view),
                Err(e) => {
                    note(cx, format!("miner {miner}: no view of its deadlines at epoch {}: {}", head.epoch, e.chain()));
                    pauses.wait(&*self.chain, &e, cx).await?;
                }
            }
        }
        None
    }

    fn take(&self, board: &mut Board, ended: Result<(Id, Ended), JoinError>, cx: &Context) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(e) => {
                note(cx, format!("a task ended without an answer: {e}"));
                (e.id(), None)
            }
        };
        match board.work.remove(&id) {
            Some(Work::View(miner)) => {
                let next = board.viewing.remove(&miner).flatten();
                if board.looking.cancel.is_cancelled() {
                    return;
                }
                if let Some(Ended::View(Some(view))) = ended {
                    self.begin_duties(board, &view, cx);
                }
                if let Some(head) = next {
                    self.begin_view(board, miner, head);
                }
            }
            Some(Work::Duty(duty)) => {
                if let Some(Ended::Duty(result)) = ended {
                    note(cx, outcome(&duty, &result));
                }
                let Duty { miner, deadline, what, .. } = *duty;
                board.settled.insert((miner, deadline.open, what), board.now);
            }
            None => {}
        }
    }

    fn begin_duties(&self, board: &mut Board, view: &ProvingView, cx: &Context) {
        let (now, recheck) = (board.now, self.options.recheck.max(1));
        board.settled.retain(|_, at| now - *at < recheck);
        for duty in self.scheduler.plan(view) {
            let settled = board.settled.contains_key(&(duty.miner, duty.deadline.open, duty.what.clone()));
            if settled || board.is_under_way(&duty) {
                continue;
            }
            note(cx, format!("{}: begun, due at epoch {}", title(&duty), duty.due));
            let (this, cx, work) = (self.clone(), cx.child(), duty.clone());
            let task = board.tasks.spawn(async move { Ended::Duty(this.pursue(&work, &cx).await) });
            board.work.insert(task.id(), Work::Duty(Box::new(duty)));
        }
    }

    /// Tries until the duty is done, or until nothing can be done about it.
    async fn pursue(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        let mut pauses = Pauses::new(&self.options);
        loop {
            let error = match self.scheduler.fulfil(duty, cx).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let final_one = matches!(error.recovery(), Recovery::Abandon | Recovery::Halt);
            if final_one || cx.cancel.is_cancelled() {
                return Err(error);
            }
            note(cx, format!("{}: tried again: {}", title(duty), error.chain()));
            if pauses.wait(&*self.chain, &error, cx).await.is_none() {
                return Err(error);
            }
        }
    }
}

/// What is under way and what has ended.
#[derive(Debug)]
struct Board {
    now: Epoch,
    /// Of the views. Once it is cancelled, nothing new begins.
    looking: Context,
    tasks: JoinSet<Ended>,
    work: HashMap<Id, Work>,
    /// Miners whose view is being taken, each with the head that came meanwhile.
    viewing: BTreeMap<ActorId, Option<TipsetRef>>,
    /// Duties that ended, and when.
    settled: HashMap<(ActorId, Epoch, DutyKind), Epoch>,
}

impl Board {
    fn new(cx: &Context) -> Self {
        let (work, settled) = (HashMap::new(), HashMap::new());
        let (looking, viewing) = (cx.child(), BTreeMap::new());
        Self { now: Epoch(i64::MIN), looking, tasks: JoinSet::new(), work, viewing, settled }
    }

    /// Whether a duty of the same kind works on one of these partitions. Their sectors may have changed since; the one
    /// that is under way reads them again itself.
    fn is_under_way(&self, duty: &Duty) -> bool {
        let indices = |d: &Duty| partitions_of(&d.what).iter().map(|(i, _)| *i).collect::<Vec<PartitionIndex>>();
        let ours = indices(duty);
        self.work.values().any(|work| match work {
            Work::Duty(other) => {
                other.miner == duty.miner
                    && other.deadline.open == duty.deadline.open
                    && other.deadline.index == duty.deadline.index
                    && discriminant(&other.what) == discriminant(&duty.what)
                    && indices(other).iter().any(|i| ours.contains(i))
            }
            Work::View(_) => false,
        })
    }
}

#[derive(Debug)]
enum Work {
    View(ActorId),
    Duty(Box<Duty>),
}

#[derive(Debug)]
enum Ended {
    View(Option<Box<ProvingView>>),
    Duty(Result<Fulfilled, PoStError>),
}

/// Growing waits between tries.
#[derive(Debug)]
struct Pauses {
    next: Duration,
    longest: Duration,
    epochs: i64,
}

impl Pauses {
    const MOST_EPOCHS: i64 = 8;

    fn new(options: &LoopOptions) -> Self {
        Self { next: options.first_retry.min(options.longest_retry), longest: options.longest_retry, epochs: 1 }
    }

    /// Waits as long as `error` calls for; none when cancelled.
    async fn wait(&mut self, chain: &dyn ChainClient, error: &PoStError, cx: &Context) -> Option<()> {
        let asked = match error.recovery() {
            Recovery::Retry { after } => after,
            _ => Some(self.longest),
        };
        let sleep = tokio::time::sleep(self.next.max(asked.unwrap_or_default()));
        // Deadlines are counted in epochs, so where those are short, waits are.
        let epochs = if asked.is_some() { Self::MOST_EPOCHS } else { self.epochs };
        let passed = async {
            let mut heads = Heads::of(chain);
            let mut first = None;
            while let Some(head) = heads.next(cx).await {
                if head.epoch - *first.get_or_insert(head.epoch) >= epochs {
                    return;
                }
            }
            std::future::pending().await
        };
        self.next = self.next.saturating_mul(2).min(self.longest);
        self.epochs = self.epochs.saturating_mul(2).min(Self::MOST_EPOCHS);
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => None,
            () = sleep => Some(()),
            () = passed => Some(()),
        }
    }
}

fn title(duty: &Duty) -> String {
    let what = match duty.what {
        DutyKind::Prove { .. } => "proof",
        _ => "recovery",
    };
    let indices: Vec<String> = partitions_of(&duty.what).iter().map(|(i, _)| i.to_string()).collect();
    format!("miner {}, deadline {}, {what} of partitions {}", duty.miner, duty.deadline.index, indices.join(", "))
}

fn outcome(duty: &Duty, result: &Result<Fulfilled, PoStError>) -> String {
    let title = title(duty);
    match result {
        Ok(done) => {
            let skipped: usize = done.skipped.iter().map(|part| part.sectors.len()).sum();
            let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} sectors left out") };
            match done.receipts.last() {
                Some(receipt) => format!("{title}: landed at epoch {} by {}{skipped}", receipt.epoch, receipt.message),
                None => format!("{title}: nothing was sent{skipped}"),
            }
        }
        Err(e) if e.kind() == PoStErrorKind::Cancelled => format!("{title}: stopped"),
        Err(e) => format!("{title}: failed: {}", e.chain()),
    }
}

fn note(cx: &Context, text: String) {
    cx.emit(Event::Note { from: "post".to_owned(), text });
}
