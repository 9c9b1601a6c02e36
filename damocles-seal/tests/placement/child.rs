//! What this program does as a child.

use damocles_core::pool::{Task, TaskKind};
use damocles_seal::processor::{Processor, ProcessorError, ProgressSink, Registry, ServeOptions, serve};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    hint::black_box,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

#[derive(Debug)]
struct Act;

macro_rules! tasks {
    ($($name:ident = $kind:literal: $task:ident => $work:expr;)*) => {
        $(
            #[derive(Debug, Serialize, Deserialize)]
            #[serde(transparent)]
            struct $name(Value);
            impl Task for $name {
                const KIND: TaskKind = TaskKind::new($kind);
                type Output = Value;
            }
            impl Processor<$name> for Act {
                fn process(&self, $task: $name, _: &dyn ProgressSink) -> Result<Value, ProcessorError> {
                    let $task = $task.0;
                    Ok($work)
                }
            }
        )*
        pub(crate) fn registry() -> Registry {
            Registry::new()$(.with::<$name>(Act))*
        }
    };
}

tasks! {
    // Threads that compute until the process ends.
    Busy = "busy": count => busy(&count);
    Die = "die": _code => die();
    Eat = "eat": mebibytes => eat(&mebibytes);
    // A process that leaves our group and our session, and whose parent is gone.
    Daemonise = "daemonise": _none => daemonise();
    Hang = "hang": file => hang(&file);
    Until = "until": file => until(&file);
    Status = "status": _none => Value::String(fs::read_to_string("/proc/self/status").unwrap());
}

fn die() -> Value {
    std::process::abort()
}

/// Daemonises, writes both numbers to the file, and never answers.
fn hang(file: &Value) -> Value {
    fs::write(file.as_str().unwrap(), daemonise().to_string()).unwrap();
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

/// Writes its number to the file, and answers when another is there.
fn until(file: &Value) -> Value {
    let file = file.as_str().unwrap();
    fs::write(format!("{file}.half"), std::process::id().to_string()).unwrap();
    fs::rename(format!("{file}.half"), file).unwrap();
    while !fs::exists(format!("{file}.go")).unwrap() {
        thread::sleep(Duration::from_millis(5));
    }
    json!(true)
}

static STARTED: AtomicBool = AtomicBool::new(false);

fn busy(count: &Value) -> Value {
    if !STARTED.swap(true, Ordering::Relaxed) {
        for _ in 0..count.as_u64().unwrap() {
            thread::spawn(|| {
                let mut n = 0u64;
                loop {
                    n = black_box(n.wrapping_mul(3) + 1);
                    if n.is_multiple_of(1 << 20) {
                        thread::yield_now();
                    }
                }
            });
        }
    }
    json!(std::process::id())
}

fn eat(mebibytes: &Value) -> Value {
    let size = usize::try_from(mebibytes.as_u64().unwrap()).unwrap() << 20;
    let mut eaten = vec![0u8; size];
    for page in eaten.chunks_mut(4096) {
        page[0] = 1;
    }
    json!(black_box(eaten).len())
}

fn daemonise() -> Value {
    let script = "setsid sh -c 'sleep 1000 </dev/null >/dev/null 2>&1 & echo $!'";
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).env_clear().output().unwrap();
    let pid: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    json!({ "me": std::process::id(), "left": pid })
}

pub(crate) fn main() -> ExitCode {
    serve(registry(), &ServeOptions::default()).unwrap();
    ExitCode::SUCCESS
}
