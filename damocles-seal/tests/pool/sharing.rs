//! Two programs on one machine that use the same card.

use crate::{
    cases::{Heard, job, marker, me, pids, spec},
    runner::{Case, cases},
};
use async_trait::async_trait;
use damocles_core::{
    BoxError, Clock, Context, GpuId, Timestamp,
    pool::{ProcessorPool, TaskKind},
};
use damocles_seal::{
    claims::{Asker, Claim, ClaimGate, Claims, Holder, Resource, Use},
    pool::{Hooks, LocalPool, SlotSpec},
};
use parking_lot::Mutex;
use std::{
    env::current_exe,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

pub(crate) fn all() -> Vec<Case> {
    cases![
        a_proof_takes_the_card_of_another_programs_c2,
        a_proof_waits_for_what_is_not_thrown_away,
        children_that_share_a_card_let_a_proof_in,
        the_card_of_a_killed_program_is_free,
        a_slot_whose_card_nobody_has_is_taken_first,
        a_proof_takes_the_card_of_the_same_programs_pc2,
        a_c2_takes_the_card_that_a_pc2_waits_for,
        a_job_that_waits_for_a_card_takes_another_that_frees,
    ]
    .into()
}

#[derive(Debug)]
struct Time;

impl Clock for Time {
    fn now(&self) -> Timestamp {
        Timestamp(1_000)
    }
}

fn card(n: u8) -> GpuId {
    GpuId(format!("GPU-{n}"))
}

fn slot_on(name: &str, cards: &[u8], kinds: &[&'static str]) -> SlotSpec {
    let kinds = kinds.iter().map(|kind| TaskKind::new(kind)).collect();
    let mut slot = SlotSpec::new(name, kinds, me(&["good"]));
    slot.placement.gpus = cards.iter().map(|n| card(*n)).collect();
    slot
}

fn claims(dir: &Path, program: &str, socket: Option<PathBuf>) -> Claims {
    Claims::at(dir.join("claims"), program, socket, Arc::new(Time)).unwrap()
}

fn pool(slots: Vec<SlotSpec>, gate: ClaimGate) -> LocalPool {
    let mut hooks = Hooks::default();
    hooks.gate = Some(Arc::new(gate));
    LocalPool::with(spec(slots), hooks).unwrap()
}

/// Asks at the holder's socket in the way of this test: a line for the question, a line for the answer.
#[derive(Debug, Default)]
struct LineAsker(Mutex<Vec<(String, bool)>>);

#[async_trait]
impl Asker for LineAsker {
    async fn ask(&self, holder: &Holder, resource: &Resource, wanted_for: &TaskKind) -> Result<bool, BoxError> {
        let mut stream = UnixStream::connect(holder.socket.as_ref().ok_or("no socket")?).await?;
        let question = serde_json::to_string(&(resource, wanted_for))?;
        stream.write_all(format!("{question}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        let yields = answer.trim() == "true";
        self.0.lock().push((holder.kind.to_string(), yields));
        Ok(yields)
    }
}

/// A worker in a process of its own: one slot on card 0 does so many jobs of this kind at a time and yields when asked,
/// until its input ends.
pub(crate) fn rival(kind: &str, dir: &str, count: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (dir, kind) = (Path::new(dir), TaskKind::read(kind.to_owned()));
        let socket = dir.join("rival.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut slot = slot_on("rival-0", &[0], &[]);
        slot.kinds = vec![kind.clone()];
        slot.concurrent = count.parse().unwrap();
        let pool = Arc::new(pool(vec![slot], ClaimGate::new(claims(dir, "worker", Some(socket)))));
        let answering = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let (resource, wanted_for): (Resource, TaskKind) = serde_json::from_str(&line).unwrap();
                let yields = pool.give_up(&resource, &wanted_for);
                stream.write_all(format!("{yields}\n").as_bytes()).await.unwrap();
            }
        };
        let (cx, mut nothing) = (Context::detached(), Vec::new());
        let mut input = tokio::io::stdin();
        let jobs = (0..count.parse().unwrap()).map(|n: u128| {
            let name = if n == 0 { "rival".to_owned() } else { format!("rival-{n}") };
            pool.run(job(n + 1, kind.as_str(), dir.join(name).to_str().unwrap()), &cx)
        });
        tokio::select! {
            () = answering => {}
            results = futures::future::join_all(jobs) => panic!("they go on for ever: {results:?}"),
            _ = input.read_to_end(&mut nothing) => {}
        }
    });
    ExitCode::SUCCESS
}

/// Starts a rival and waits until it works.
async fn start_rival(kind: &str, dir: &Path) -> (Child, Vec<i32>) {
    let mut command = Command::new(current_exe().unwrap());
    let rival = command.args(["rival", kind]).arg(dir).arg("1").stdin(Stdio::piped()).spawn().unwrap();
    let first = pids(&dir.join("rival")).await;
    (rival, first)
}

async fn children_that_share_a_card_let_a_proof_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(current_exe().unwrap());
    let mut rival = command.args(["rival", "c2"]).arg(dir.path()).arg("2").stdin(Stdio::piped()).spawn().unwrap();
    let both = ["rival", "rival-1"].map(|name| dir.path().join(name));
    for file in &both {
        pids(file).await;
        fs::remove_file(file).unwrap();
    }
    let asker = Arc::new(LineAsker::default());
    let gate = ClaimGate::new(claims(dir.path(), "manager", None)).asking(asker.clone());
    let manager = pool(vec![slot_on("post-0", &[0], &["window_post"])], gate);
    manager.run(job(1, "window_post", "proof"), &Context::detached()).await.unwrap();
    // Neither came back before the proof was done, and both do after it.
    for file in &both {
        pids(file).await;
    }
    drop(rival.stdin.take());
    assert!(rival.wait().unwrap().success());
}

async fn a_proof_takes_the_card_of_another_programs_c2() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rival, first) = start_rival("c2", dir.path()).await;
    let asker = Arc::new(LineAsker::default());
    let gate = ClaimGate::new(claims(dir.path(), "manager", None)).asking(asker.clone());
    let manager = pool(vec![slot_on("post-0", &[0], &["window_post"])], gate);
    fs::remove_file(dir.path().join("rival")).unwrap();
    let heard = Arc::new(Heard::default());
    manager.run(job(1, "window_post", "proof"), &Context::new(heard.clone())).await.unwrap();
    assert_eq!(*asker.0.lock(), [("c2".to_owned(), true)]);
    let said = format!("{:?}", heard.0.lock());
    assert!(said.contains("GPU GPU-0 is held by c2 in worker (pid "), "{said}");
    // What was stopped is begun again, by itself.
    let again = pids(&dir.path().join("rival")).await;
    assert_ne!(first, again);
    drop(rival.stdin.take());
    assert!(rival.wait().unwrap().success());
}

async fn a_proof_waits_for_what_is_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rival, _) = start_rival("pc1", dir.path()).await;
    let asker = Arc::new(LineAsker::default());
    let gate = ClaimGate::new(claims(dir.path(), "manager", None)).asking(asker.clone());
    let manager = pool(vec![slot_on("post-0", &[0], &["window_post"])], gate);
    let heard = Arc::new(Heard::default());
    let cx = Context::new(heard.clone());
    let watch = async {
        while !format!("{:?}", heard.0.lock()).contains("is held by pc1") {
            heard.1.notified().await;
        }
        // Its end, however it comes, is what the proof waits for.
        rival.kill().unwrap();
        rival.wait().unwrap();
    };
    let (proof, ()) = tokio::join!(manager.run(job(1, "window_post", "proof"), &cx), watch);
    proof.unwrap();
    assert!(asker.0.lock().is_empty(), "nobody asks for what is never given");
}

async fn the_card_of_a_killed_program_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rival, _) = start_rival("c2", dir.path()).await;
    rival.kill().unwrap();
    rival.wait().unwrap();
    let manager = pool(vec![slot_on("c2-0", &[0], &["echo"])], ClaimGate::new(claims(dir.path(), "manager", None)));
    manager.run(job(1, "echo", "x"), &Context::detached()).await.unwrap();
}

async fn a_slot_whose_card_nobody_has_is_taken_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rival, first) = start_rival("c2", dir.path()).await;
    let asker = Arc::new(LineAsker::default());
    let gate = ClaimGate::new(claims(dir.path(), "manager", None)).asking(asker.clone());
    let slots = vec![slot_on("post-0", &[0], &["window_post"]), slot_on("post-1", &[1], &["window_post"])];
    let manager = pool(slots, gate);
    manager.run(job(1, "window_post", "proof"), &Context::detached()).await.unwrap();
    assert!(asker.0.lock().is_empty(), "another card serves");
    assert_eq!(pids(&dir.path().join("rival")).await, first, "the C2 was let alone");
    drop(rival.stdin.take());
    rival.wait().unwrap();
}

async fn a_proof_takes_the_card_of_the_same_programs_pc2() {
    let (_dir, file, text) = marker();
    let slots = vec![slot_on("pc2-0", &[0], &["pc2"]), slot_on("post-0", &[0], &["window_post"])];
    let pool = LocalPool::new(spec(slots)).unwrap();
    let cx = Context::detached();
    let proof = async {
        let first = pids(&file).await;
        fs::remove_file(&file).unwrap();
        let own = Context::detached();
        let proven = pool.run(job(2, "window_post", "proof"), &own);
        tokio::time::timeout(Duration::from_secs(60), proven).await.expect("it does not wait for ever").unwrap();
        assert_ne!(pids(&file).await, first, "the PC2 is begun again");
        cx.cancel.cancel();
    };
    let (pc2, ()) = tokio::join!(pool.run(job(1, "pc2", &text), &cx), proof);
    assert!(pc2.is_err());
}

/// A proof of another program on a card.
fn proof_elsewhere(dir: &Path, n: u8) -> Claim {
    let used = Use { kind: TaskKind::new("window_post"), sector: None };
    claims(dir, "manager", None).try_claim(&[Resource::Gpu(card(n))], &used, None).unwrap()
}

/// Waits until something is heard of a job.
async fn hears(heard: &Heard, text: &str) {
    while !format!("{:?}", heard.0.lock()).contains(text) {
        heard.1.notified().await;
    }
}

async fn a_c2_takes_the_card_that_a_pc2_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let proof = proof_elsewhere(dir.path(), 0);
    let slots = vec![slot_on("pc2-0", &[0], &["pc2"]), slot_on("c2-0", &[0], &["c2"])];
    let pool = pool(slots, ClaimGate::new(claims(dir.path(), "worker", None)));
    let [(_one, pc2_file, pc2_name), (_two, c2_file, c2_name)] = [marker(), marker()];
    let (pc2_heard, c2_heard) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let (pc2, c2) = (Context::new(pc2_heard.clone()), Context::new(c2_heard.clone()));
    let watch = async {
        hears(&c2_heard, "GPU GPU-0 is held by window_post in manager (pid ").await;
        let waiting = pool.waiting();
        let reasons: Vec<&str> = waiting.iter().map(|job| job.reason.as_str()).collect();
        let held =
            format!("needs 1 GPU; GPU GPU-0 is held by window_post in manager (pid {}) for 0s", std::process::id());
        assert_eq!(reasons[0], held, "it is said who has it");
        drop(proof);
        pids(&c2_file).await;
        assert!(!pc2_file.exists(), "the PC2 has not begun");
        c2.cancel.cancel();
        pids(&pc2_file).await;
        pc2.cancel.cancel();
    };
    let late = async {
        // It has its slot and waits for the card before the C2 comes.
        hears(&pc2_heard, "GPU GPU-0 is held by window_post in manager (pid ").await;
        pool.run(job(2, "c2", &c2_name), &c2).await
    };
    let all = async { tokio::join!(pool.run(job(1, "pc2", &pc2_name), &pc2), late, watch) };
    let (pc2, c2, ()) = tokio::time::timeout(Duration::from_secs(120), all).await.expect("nobody waits for ever");
    assert!(pc2.is_err() && c2.is_err(), "both were cancelled while they worked");
}

async fn a_job_that_waits_for_a_card_takes_another_that_frees() {
    let dir = tempfile::tempdir().unwrap();
    let proofs = [0, 1].map(|n| proof_elsewhere(dir.path(), n));
    let slots = vec![slot_on("x-0", &[0], &["echo"]), slot_on("x-1", &[1], &["echo"])];
    let pool = pool(slots, ClaimGate::new(claims(dir.path(), "worker", None)));
    let heard = Arc::new(Heard::default());
    let cx = Context::new(heard.clone());
    let [first, second] = proofs;
    let watch = async {
        hears(&heard, "GPU GPU-0 is held by window_post").await;
        drop(second);
    };
    let all = async { tokio::join!(pool.run(job(1, "echo", "x"), &cx), watch) };
    let (echo, ()) = tokio::time::timeout(Duration::from_secs(120), all).await.expect("the other card is free");
    echo.unwrap();
    drop(first);
}
