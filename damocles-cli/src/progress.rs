//! How far long work is: bars on a terminal, a line every few seconds otherwise.

use crate::output;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use std::{collections::BTreeMap, fmt, io::IsTerminal as _, sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// How often a line is printed where bars cannot be drawn.
const EVERY: Duration = Duration::from_secs(5);

/// Where long work reports. Clones report to the same place.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    /// Redrawn in place.
    Bars(MultiProgress),
    /// Printed line by line.
    Lines { tasks: Arc<Mutex<Tasks>>, _ticker: AbortOnDropHandle<()> },
    /// Nobody wants to see it.
    Silent,
}

impl Progress {
    /// Bars if standard error is a terminal, lines if it is not, nothing if `quiet`. Call it inside the runtime.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self(Arc::new(Inner::Silent));
        }
        if std::io::stderr().is_terminal() {
            return Self(Arc::new(Inner::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))));
        }
        let tasks = Arc::new(Mutex::new(Tasks::default()));
        let ticker = tokio::spawn(tick(Arc::clone(&tasks)));
        Self(Arc::new(Inner::Lines { tasks, _ticker: AbortOnDropHandle::new(ticker) }))
    }

    /// A piece of work begins. `total` is how many units it has, if that is known.
    pub fn task(&self, name: impl Into<String>, total: Option<u64>) -> TaskProgress {
        let name = name.into();
        let shown = match &*self.0 {
            Inner::Bars(bars) => Shown::Bar(bars.add(bar(&name, total))),
            Inner::Lines { tasks, .. } => {
                let id = tasks.lock().begin(&name, total);
                output::line(format_args!("{name}: started"));
                Shown::Line { tasks: Arc::clone(tasks), id }
            }
            Inner::Silent => Shown::Nowhere,
        };
        TaskProgress(shown)
    }

    /// One line that stays.
    pub fn note(&self, note: impl fmt::Display) {
        match &*self.0 {
            // A closed terminal is no reason to stop working.
            Inner::Bars(bars) => drop(bars.println(note.to_string())),
            Inner::Lines { .. } => output::line(note),
            Inner::Silent => {}
        }
    }
}

fn bar(name: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix:24} [{bar:30}] {percent:>3}% {elapsed} {msg}",
        None => "{prefix:24} {spinner} {elapsed} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

async fn tick(tasks: Arc<Mutex<Tasks>>) {
    let mut every = tokio::time::interval(EVERY);
    every.tick().await;
    loop {
        every.tick().await;
        let text = tasks.lock().summary();
        if let Some(text) = text {
            output::line(text);
        }
    }
}

/// One piece of work. Dropped without [`TaskProgress::done`], it just disappears.
#[derive(Debug)]
pub struct TaskProgress(Shown);

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Line { tasks: Arc<Mutex<Tasks>>, id: u64 },
    Nowhere,
}

impl TaskProgress {
    /// So many units are done.
    pub fn set(&self, done: u64) {
        match &self.0 {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Line { tasks, id } => tasks.lock().update(*id, |task| task.done = done),
            Shown::Nowhere => {}
        }
    }

    /// What is being done now.
    pub fn note(&self, note: impl Into<String>) {
        match &self.0 {
            Shown::Bar(bar) => bar.set_message(note.into()),
            Shown::Line { tasks, id } => {
                let note = note.into();
                tasks.lock().update(*id, |task| task.note = note);
            }
            Shown::Nowhere => {}
        }
    }

    /// The work ended well.
    pub fn done(self, note: impl fmt::Display) {
        match &self.0 {
            Shown::Bar(bar) => bar.finish_with_message(note.to_string()),
            Shown::Line { tasks, id } => {
                let task = tasks.lock().0.remove(id);
                if let Some(task) = task {
                    output::line(format_args!("{}: {note}", task.name));
                }
            }
            Shown::Nowhere => {}
        }
    }
}

impl Drop for TaskProgress {
    fn drop(&mut self) {
        match &self.0 {
            Shown::Bar(bar) if !bar.is_finished() => bar.finish_and_clear(),
            Shown::Line { tasks, id } => drop(tasks.lock().0.remove(id)),
            Shown::Bar(_) | Shown::Nowhere => {}
        }
    }
}

/// What runs, in the order in which it began.
#[derive(Debug, Default)]
struct Tasks(BTreeMap<u64, RunningTask>);

#[derive(Debug)]
struct RunningTask {
    name: String,
    total: Option<u64>,
    done: u64,
    note: String,
}

impl Tasks {
    fn begin(&mut self, name: &str, total: Option<u64>) -> u64 {
        let id = self.0.last_key_value().map_or(0, |(last, _)| last + 1);
        self.0.insert(id, RunningTask { name: name.to_owned(), total, done: 0, note: String::new() });
        id
    }

    fn update(&mut self, id: u64, change: impl FnOnce(&mut RunningTask)) {
        if let Some(task) = self.0.get_mut(&id) {
            change(task);
        }
    }

    /// All that runs on one line.
    fn summary(&self) -> Option<String> {
        let text = self.0.values().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(total) = self.total.filter(|t| *t > 0) {
            let percent = u128::from(self.done.min(total)) * 100 / u128::from(total);
            write!(f, " {percent}%")?;
        }
        if self.note.is_empty() { Ok(()) } else { write!(f, " ({})", self.note) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_runs_is_on_one_line() {
        let mut tasks = Tasks::default();
        assert_eq!(tasks.summary(), None);
        let sealing = tasks.begin("sealing", Some(8));
        tasks.begin("devnet", None);
        tasks.update(sealing, |task| task.done = 9);
        assert_eq!(tasks.summary().unwrap(), "sealing 100% | devnet");
        tasks.update(sealing, |task| (task.done, task.note) = (3, "pc2".to_owned()));
        assert_eq!(tasks.summary().unwrap(), "sealing 37% (pc2) | devnet");
        tasks.0.remove(&sealing);
        assert_eq!(tasks.summary().unwrap(), "devnet");
    }
}
