//! What this program does as a child, good and bad.

use damocles_core::{
    JobId,
    pool::{Task, TaskKind},
};
use damocles_seal::{
    pool::wire::{self, FromChild, Json, ToChild},
    processor::{Processor, ProcessorError, ProgressSink, Registry, ServeOptions, serve},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs,
    io::{Write, stdin, stdout},
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

/// Work that does what its name says.
#[derive(Debug)]
pub(crate) struct Act;

macro_rules! tasks {
    ($($name:ident = $kind:literal),*) => {
        $(
            #[derive(Debug, Serialize, Deserialize)]
            #[serde(transparent)]
            pub(crate) struct $name(pub(crate) Value);
            impl Task for $name {
                const KIND: TaskKind = TaskKind::new($kind);
                type Output = Value;
            }
        )*
    };
}
tasks!(Echo = "echo", Noise = "noise", Fail = "fail", Full = "full", Panic = "panic", Die = "die", Steps = "steps");
tasks!(Forever = "forever", Leave = "leave", Cpus = "cpus");
// What sealing and proving are called: the first three go on for ever, a proof is there at once.
tasks!(Pc1Like = "pc1", Pc2Like = "pc2", C2Like = "c2", Proof = "window_post");

fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

/// Starts a process that this one does not wait for, and writes both numbers to the file.
#[expect(clippy::zombie_processes, reason = "that is what it is for")]
fn leave_a_process(file: &Value) {
    let left = Command::new("sleep").arg("1000").spawn().unwrap();
    let file = PathBuf::from(file.as_str().unwrap());
    let half = file.with_extension("half");
    fs::write(&half, format!("{} {}", std::process::id(), left.id())).unwrap();
    fs::rename(half, file).unwrap();
}

macro_rules! act {
    ($name:ident, $task:ident, $progress:ident, $work:expr) => {
        impl Processor<$name> for Act {
            fn process(&self, $task: $name, $progress: &dyn ProgressSink) -> Result<Value, ProcessorError> {
                $work
            }
        }
    };
}
act!(Echo, task, _progress, Ok(task.0));
act!(Noise, task, _progress, {
    println!("a library that prints");
    stdout().flush().unwrap();
    eprintln!("and complains");
    Ok(task.0)
});
act!(Fail, _task, _progress, {
    let cause = std::io::Error::other("the cause");
    Err(ProcessorError::new("the work", cause))
});
act!(Full, _task, _progress, {
    Err(ProcessorError::new("write", std::io::Error::from(std::io::ErrorKind::StorageFull)))
});
act!(Panic, _task, _progress, panic!("the bug"));
act!(Die, _task, _progress, {
    eprintln!("farewell");
    std::process::abort()
});
act!(Steps, task, progress, {
    for n in 1..=3 {
        progress.progress(n, Some(3));
    }
    Ok(task.0)
});
act!(Forever, task, _progress, {
    leave_a_process(&task.0);
    forever()
});
act!(Pc1Like, task, _progress, {
    leave_a_process(&task.0);
    forever()
});
act!(Pc2Like, task, _progress, {
    leave_a_process(&task.0);
    forever()
});
act!(C2Like, task, _progress, {
    leave_a_process(&task.0);
    forever()
});
act!(Proof, task, _progress, Ok(task.0));
act!(Leave, task, _progress, {
    leave_a_process(&task.0);
    std::process::exit(3)
});
act!(Cpus, _task, _progress, {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    Ok(Value::String(list.trim().to_owned()))
});

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with::<Echo>(Act)
        .with::<Noise>(Act)
        .with::<Fail>(Act)
        .with::<Full>(Act)
        .with::<Panic>(Act)
        .with::<Die>(Act)
        .with::<Steps>(Act)
        .with::<Forever>(Act)
        .with::<Leave>(Act)
        .with::<Cpus>(Act)
        .with::<Pc1Like>(Act)
        .with::<Pc2Like>(Act)
        .with::<C2Like>(Act)
        .with::<Proof>(Act)
}

fn say(frame: &FromChild) {
    let mut out = stdout().lock();
    out.write_all(&wire::encode(frame).unwrap()).unwrap();
    out.flush().unwrap();
}

fn ready(version: u32) -> FromChild {
    let kinds = vec![TaskKind::new("echo")];
    FromChild::Ready {
        magic: wire::MAGIC.to_owned(),
        version,
        oldest: None,
        kinds,
        pid: std::process::id(),
        features: Vec::new(),
    }
}

/// The life of a child that was started with these arguments.
pub(crate) fn main(args: &[String]) -> ExitCode {
    match args.first().map(String::as_str) {
        Some("good") => {
            serve(registry(), &ServeOptions::default()).unwrap();
            return ExitCode::SUCCESS;
        }
        #[cfg(feature = "proofs")]
        Some("seal") => {
            serve(damocles_seal::processor::all(), &ServeOptions::default()).unwrap();
            return ExitCode::SUCCESS;
        }
        Some("hello") => print!("hello, world: this is not a frame"),
        Some("silent") => {}
        Some("old") => say(&ready(1)),
        Some("useless") => say(&FromChild::Done { id: JobId(1), output: Json::default(), output_file: None }),
        Some("quits") => {
            eprintln!("the library is missing");
            return ExitCode::from(9);
        }
        Some("mad") => {
            say(&ready(wire::VERSION));
            let task = wire::read::<ToChild>(&mut stdin().lock()).unwrap().unwrap();
            let ToChild::Task { id, .. } = task else { panic!("{task:?}") };
            match args.get(1).map(String::as_str) {
                Some("other job") => {
                    say(&FromChild::Done { id: JobId(id.0 + 1), output: Json::default(), output_file: None })
                }
                Some("cut") => {
                    let frame =
                        wire::encode(&FromChild::Done { id, output: Json::default(), output_file: None }).unwrap();
                    stdout().write_all(&frame[..frame.len() - 3]).unwrap();
                    return ExitCode::SUCCESS;
                }
                Some("text") => print!("Segmentation fault"),
                Some("json") => stdout().write_all(b"\0\0\0\x02{}").unwrap(),
                mode => panic!("{mode:?}"),
            }
        }
        mode => panic!("no such child: {mode:?}"),
    }
    stdout().flush().unwrap();
    forever()
}
