//! Children that break a protocol, each in one way.

use damocles_core::{JobId, pool::TaskKind};
use damocles_seal::pool::{
    Protocol,
    wire::{self, FailureKind, Feature, FileRef, Files, FromChild, Json, ToChild},
};
use nix::{
    sys::signal::{SigSet, Signal, raise},
    unistd::close,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, Write, stdin, stdout},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

/// The child's side of a protocol.
struct Bad {
    protocol: Protocol,
    files: Option<Files>,
}

impl Bad {
    fn bytes(&self, bytes: &[u8]) {
        let mut out = stdout().lock();
        // The pool may have had enough of it.
        let _ = out.write_all(bytes);
        let _ = out.flush();
    }

    fn frame(&self, frame: &FromChild) {
        self.bytes(&wire::encode(frame).unwrap());
    }

    fn ready(&self) {
        match self.protocol {
            Protocol::V1 => self.bytes(b"c2 processor ready\n"),
            _ => self.frame(&FromChild::Ready {
                magic: wire::MAGIC.to_owned(),
                version: wire::VERSION,
                oldest: Some(1),
                kinds: vec![TaskKind::new("c2")],
                pid: std::process::id(),
                features: vec![Feature::Hello, Feature::Ping, Feature::Files],
            }),
        }
    }

    /// Waits for a task, whatever else comes.
    fn task(&mut self) -> u128 {
        if self.protocol == Protocol::V1 {
            let mut line = String::new();
            stdin().lock().read_line(&mut line).unwrap();
            let request: Value = serde_json::from_str(&line).unwrap();
            return u128::from(request["id"].as_u64().unwrap());
        }
        loop {
            match wire::read::<ToChild>(&mut stdin().lock()).unwrap().unwrap() {
                ToChild::Task { id, .. } => return id.0,
                ToChild::Hello(hello) => self.files = hello.files,
                _ => {}
            }
        }
    }

    fn answer(&self, id: u128) -> Vec<u8> {
        match self.protocol {
            Protocol::V1 => {
                let id = u64::try_from(id).unwrap();
                format!("{}\n", json!({"id": id, "err_msg": null, "output": {"proof": [1, 2, 3]}})).into()
            }
            _ => {
                let output = Json::parse(br#"{"proof":"010203"}"#).unwrap();
                wire::encode(&FromChild::Done { id: JobId(id), output, output_file: None }).unwrap().to_vec()
            }
        }
    }

    fn done(&self, id: u128) {
        self.bytes(&self.answer(id));
    }

    fn rubbish(&self, mode: &str) {
        match (mode, self.protocol) {
            ("rubbish", _) => self.bytes(b"Segmentation fault\n"),
            ("non-utf8", Protocol::V1) => self.bytes(b"\xff\xfe\xfd\n"),
            ("non-utf8", _) => self.bytes(b"\0\0\0\x03\xff\xfe\xfd"),
            ("gigabyte", Protocol::V1) => (0..16 << 10).for_each(|_| self.bytes(&[b'x'; 64 << 10])),
            ("gigabyte", _) => self.bytes(&(1u32 << 30).to_be_bytes()),
            ("null", _) => self.bytes(b"{\"id\":1,\"err_msg\":null,\"output\":null}\n"),
            (mode, _) => panic!("{mode}"),
        }
    }

    fn file(&self, id: u128, mode: &str) {
        let dir = &self.files.as_ref().unwrap().dir;
        let text = br#"{"proof":"010203"}"#;
        let sha256 = "5e7b8c7b0b1a4b6dd0c6a5e0a5b0f5d1a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned();
        let mut file = FileRef { name: "out".to_owned(), len: text.len() as u64, sha256 };
        match mode {
            "file missing" => {}
            "file short" => fs::write(dir.join("out"), &text[1..]).unwrap(),
            "file changed" => fs::write(dir.join("out"), text).unwrap(),
            "file elsewhere" => file.name = "../../../etc/hostname".to_owned(),
            mode => panic!("{mode}"),
        }
        self.frame(&FromChild::Done { id: JobId(id), output: Json::default(), output_file: Some(file) });
    }
}

fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

/// Writes the numbers of this process and of those it started.
fn tell(file: &str, others: &[u32]) {
    let pids: Vec<String> = [std::process::id()].iter().chain(others).map(u32::to_string).collect();
    let half = format!("{file}.half");
    fs::write(&half, pids.join(" ")).unwrap();
    fs::rename(half, file).unwrap();
}

fn leave(program: &[&str]) -> u32 {
    // It holds all three streams open.
    Command::new(program[0]).args(&program[1..]).stdin(Stdio::inherit()).spawn().unwrap().id()
}

/// The life of a child that was started with these arguments: protocol, way to fail, file for process numbers.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let protocol = if args[0] == "v1" { Protocol::V1 } else { Protocol::V2 };
    let (mode, file) = (args[1].as_str(), args[2].as_str());
    let mut bad = Bad { protocol, files: None };
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTERM);
    if matches!(mode, "ignores-term" | "done-when-stopped") {
        stops.thread_block().unwrap();
    }
    match mode {
        "slow" => {
            tell(file, &[]);
            forever();
        }
        "noise" => bad.bytes(b"loading the library\n"),
        "endless" => bad.bytes(&[b'x'; 100 << 10]),
        "other-stage" => bad.bytes(b"pc1 processor ready\n"),
        "quits" => {
            tell(file, &[]);
            eprintln!("the library is missing");
            return ExitCode::from(9);
        }
        _ => {}
    }
    bad.ready();
    if matches!(mode, "never-reads") {
        tell(file, &[]);
        forever();
    }
    let id = bad.task();
    match mode {
        "fork" => tell(file, &[leave(&["sleep", "1000"])]),
        "setsid" => tell(file, &[leave(&["setsid", "sleep", "1000"])]),
        _ => tell(file, &[]),
    }
    match mode {
        "exit" | "fork" | "setsid" => {
            eprintln!("farewell");
            return ExitCode::from(3);
        }
        "killed" => raise(Signal::SIGKILL).unwrap(),
        "stops" => raise(Signal::SIGSTOP).unwrap(),
        "closes" => close(1).unwrap(),
        "partial" => {
            let answer = bad.answer(id);
            bad.bytes(&answer[..answer.len() / 2]);
        }
        "wrong-id" => bad.done(id + 100),
        "twice" => bad.bytes(&bad.answer(id).repeat(2)),
        "fails" => match protocol {
            Protocol::V1 => bad.bytes(b"{\"id\":1,\"err_msg\":\"no such sector\",\"output\":null}\n"),
            _ => {
                let error = vec!["no such sector".to_owned()];
                bad.frame(&FromChild::Failed { id: JobId(id), kind: FailureKind::Failed, error });
            }
        },
        "done-and-exit" => {
            bad.done(id);
            return ExitCode::SUCCESS;
        }
        "done-and-killed" => {
            bad.done(id);
            raise(Signal::SIGKILL).unwrap();
        }
        "done-and-stops" => {
            bad.done(id);
            raise(Signal::SIGSTOP).unwrap();
        }
        "done-when-stopped" => {
            stops.wait().unwrap();
            bad.done(id);
        }
        "floods" => loop {
            bad.frame(&FromChild::Progress { id: JobId(id), done: 1, total: None });
        },
        "ignores-term" => {}
        mode if mode.starts_with("file") => bad.file(id, mode),
        mode => bad.rubbish(mode),
    }
    // Not read on: nobody answers pings either.
    forever()
}
