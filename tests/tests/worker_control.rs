//! Orders to a worker at work, and what it says of itself: real daemons, real children, a devnet.

use anyhow::{Context as _, ensure};
use damocles_cli::worker::{
    control::{Answer, Reload, ThreadState},
    explain::Explanation,
    info::WorkerInfo,
};
use damocles_tests::{
    lab::{Bins, Lab, Options, path_text},
    program,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn bins() -> Bins {
    Bins {
        manager: env!("CARGO_BIN_EXE_damocles-test-manager").into(),
        worker: env!("CARGO_BIN_EXE_damocles-test-worker").into(),
        prover: env!("CARGO_BIN_EXE_damocles-test-prover").into(),
    }
}

/// A lab with one sector, whose worker serves metrics and takes orders on a port.
async fn lab() -> anyhow::Result<Lab> {
    let lab = Lab::prepare(bins(), Options { sectors: 1, ..Options::default() }).await?;
    let token = lab.path("control.token");
    std::fs::write(&token, TOKEN)?;
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let ports = format!(
        "[metrics]\nenable = true\nhttp_listen = \"127.0.0.1:0\"\n\n[worker]\ncontrol_listen = \"127.0.0.1:0\"\n\
         control_token_file = {}\n",
        serde_json::to_string(&path_text(&token)?)?
    );
    let text = std::fs::read_to_string(lab.worker_file())?;
    std::fs::write(lab.worker_file(), text.replacen("[worker]\n", &ports, 1))?;
    Ok(lab)
}

/// Runs a command of the worker; its exit code, standard output and standard error.
async fn tell(lab: &Lab, args: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let file = path_text(&lab.worker_file())?;
    let all: Vec<&str> = args.iter().copied().chain(["-c", file.as_str()]).collect();
    let output = program::run(&lab.bins().worker, &all).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

async fn order(lab: &Lab, args: &[&str]) -> anyhow::Result<Answer> {
    let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let (code, out, err) = tell(lab, &all).await?;
    ensure!(code == Some(0), "{args:?} ended with {code:?}: {err}");
    Ok(serde_json::from_str(&out)?)
}

async fn explain(lab: &Lab) -> anyhow::Result<(bool, String)> {
    let (code, out, err) = tell(lab, &["explain", "-i", "0", "--json"]).await?;
    ensure!(code == Some(0), "{err}");
    let told: Explanation = serde_json::from_str(&out)?;
    let why = told.threads.first().context("there is a thread")?;
    Ok((why.works, why.reasons.join("; ")))
}

/// The address that the worker noted behind these words.
fn address(lab: &Lab, words: &str) -> anyhow::Result<SocketAddr> {
    let log = lab.worker.log();
    let at = log.rfind(words).with_context(|| format!("`{words}` in {log}"))? + words.len();
    let rest = log.get(at..).unwrap_or_default();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':'))).unwrap_or(rest.len());
    Ok(rest.get(..end).unwrap_or_default().parse()?)
}

async fn exchange(to: SocketAddr, request: String) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn post(to: SocketAddr, path: &str, bearer: &str, method: &str, params: &str) -> anyhow::Result<String> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {bearer}\r\n");
    exchange(to, format!("{head}Content-Length: {length}\r\n\r\n{body}")).await
}

async fn metrics(lab: &Lab) -> anyhow::Result<String> {
    let to = address(lab, "metrics are served at http://")?;
    exchange(to, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()).await
}

async fn works_at(lab: &Lab, stage: &str) -> anyhow::Result<()> {
    let shown = lab.thread_shows(stage, |t| {
        t.stage.as_deref() == Some(stage) && t.job.as_ref().is_some_and(|job| job.pid.is_some())
    });
    shown.await.map(drop)
}

#[tokio::test]
async fn a_sector_is_paused_sent_back_drained_and_sealed_all_the_same() -> anyhow::Result<()> {
    let mut lab = lab().await?;
    std::fs::write(lab.mood(), "pc1 hang")?;
    lab.worker.start().await?;
    works_at(&lab, "pc1").await?;
    let (works, why) = explain(&lab).await?;
    ensure!(works && why.contains("it works: pc1"), "{why}");
    ensure!(tell(&lab, &["explain"]).await?.1.starts_with("everything works"));

    // By the port, with the token and the names of the incumbent.
    let port = address(&lab, "orders are taken at http://")?;
    let listed = post(port, "/", TOKEN, "VenusWorker.WorkerList", "[]").await?;
    ensure!(listed.contains(r#""job_stage":"PC1""#) && listed.contains(r#""state":"Running""#), "{listed}");
    let refused = post(port, "/rpc/v0", "wrong", "VenusWorker.WorkerPause", "[0]").await?;
    ensure!(refused.contains("token") && !refused.contains("result"), "{refused}");

    let (code, _, said) = tell(&lab, &["resume", "-i", "0", "--state", "tree_d"]).await?;
    ensure!(code == Some(1) && said.contains("at work") && said.contains("pause"), "{code:?} {said}");
    ensure!(order(&lab, &["pause", "-i", "0", "--now"]).await?.changed);
    lab.thread_shows("paused", |t| t.state == ThreadState::Paused && t.failures == 0 && t.job.is_none()).await?;
    ensure!(!order(&lab, &["pause", "-i", "0", "--now"]).await?.changed, "it is paused already");
    let (works, why) = explain(&lab).await?;
    ensure!(!works && why.contains("paused by"), "{why}");
    let (code, _, said) = tell(&lab, &["resume", "-i", "0", "--state", "c2"]).await?;
    ensure!(code == Some(1) && said.contains("it can go on at pieces, add_pieces, tree_d"), "{code:?} {said}");
    let (code, _, _) = tell(&lab, &["pause", "-i", "7"]).await?;
    ensure!(code == Some(2), "a thread that is not there: {code:?}");

    // The drain comes while pc2 works, and its result is kept.
    std::fs::write(lab.mood(), "pc2 slow 3000")?;
    let back = order(&lab, &["resume", "-i", "0", "--state", "tree_d"]).await?;
    ensure!(back.message.contains("tree_d, ticket"), "{back:?}");
    works_at(&lab, "pc2").await?;
    let text = metrics(&lab).await?;
    for line in [
        "damocles_worker_build_info",
        "damocles_worker_jobs_running{kind=\"pc2\"} 1",
        "damocles_worker_slots{kind=\"pc2\",state=\"busy\"} 1",
        "damocles_worker_stage_seconds_count{stage=\"tree_d\",result=\"done\"} 2",
        "damocles_worker_threads{state=\"running\"} 1",
        "damocles_worker_manager_answers 1",
        "damocles_worker_store_free_bytes{",
        "# EOF",
    ] {
        ensure!(text.contains(line), "`{line}` is missing in {text}");
    }
    ensure!(order(&lab, &["drain"]).await?.changed && !order(&lab, &["drain"]).await?.changed);
    let nobody = idle(&lab)?;
    let mut worker = std::mem::replace(&mut lab.worker, nobody);
    lab.eventually("the worker ends", async || Ok(!worker.is_running())).await?;
    ensure!(worker.stop().await? == Some(0), "a drain is no failure");
    lab.worker = worker;

    std::fs::write(lab.mood(), "")?;
    lab.worker.start().await?;
    lab.finish().await?;
    let pc2 = lab.diary_lines(damocles_tests::lab::Parent::Worker).into_iter().filter(|line| line == "pc2").count();
    ensure!(pc2 == 1, "pc2 ran {pc2} times");
    let info: WorkerInfo = serde_json::from_str(&tell(&lab, &["info", "--json"]).await?.1)?;
    ensure!(info.manager.answers == Some(true) && info.slots.len() == 7 && info.stores.len() == 2, "{info:?}");
    ensure!(info.stores.iter().all(|store| store.free.is_some()), "{info:?}");
    lab.worker.stop().await?;
    Ok(())
}

/// Stands in while the worker is waited for.
fn idle(lab: &Lab) -> anyhow::Result<program::Program> {
    Ok(program::Program::new("nobody", Path::new("/nonexistent"), Vec::new(), &lab.path("logs")))
}

#[tokio::test]
async fn an_aborted_sector_is_kept_until_the_manager_is_back() -> anyhow::Result<()> {
    let mut lab = lab().await?;
    std::fs::write(lab.mood(), "pc1 hang")?;
    lab.worker.start().await?;
    works_at(&lab, "pc1").await?;
    let sector = lab.list().await?.threads.first().and_then(|t| t.sector).context("it has a sector")?;
    let staged = lab.path("sealing/data/unsealed").join(sector.to_string());
    ensure!(staged.exists(), "{}", staged.display());
    lab.manager.kill().await?;
    let (code, _, said) = tell(&lab, &["abort", "-i", "0", "--reason", "a bad disk"]).await?;
    ensure!(code == Some(2) && said.contains("--really-do-it"), "{code:?} {said}");
    let abort = ["abort", "-i", "0", "--reason", "a bad disk", "--really-do-it"];
    ensure!(order(&lab, &abort).await?.changed);
    lab.thread_shows("it tells the manager in vain", |t| t.failures > 1 && t.sector == Some(sector)).await?;
    ensure!(!order(&lab, &abort).await?.changed, "it ends already");
    let (_, why) = explain(&lab).await?;
    ensure!(why.contains("before the manager has confirmed") && staged.exists(), "{why}");
    // Not even a kill of the worker changes that.
    lab.worker.kill().await?;
    ensure!(staged.exists());
    lab.start_manager().await?;
    lab.worker.start().await?;
    lab.eventually("the files are removed", async || Ok(!staged.exists())).await?;
    lab.eventually("the manager knows why", async || {
        let shown: Value = lab.manage(&["sectors", "show", &sector.to_string()]).await?;
        Ok(shown.to_string().contains("a bad disk"))
    })
    .await?;
    std::fs::write(lab.mood(), "")?;
    tokio::time::timeout(Duration::from_secs(60), lab.worker.stop()).await??;
    Ok(())
}

/// Lets the worker read its file again, as `systemctl reload` does.
fn hang_up(lab: &Lab) -> anyhow::Result<()> {
    let pid = lab.worker.pid().context("the worker runs")?;
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGHUP)?)
}

async fn info(lab: &Lab) -> anyhow::Result<WorkerInfo> {
    let (code, out, err) = tell(lab, &["info", "--json"]).await?;
    ensure!(code == Some(0), "{err}");
    Ok(serde_json::from_str(&out)?)
}

/// Waits until the worker has read its file again; what came of that.
async fn read_again(lab: &Lab) -> anyhow::Result<Reload> {
    let before = lab.list().await?.reload;
    hang_up(lab)?;
    let mut after = None;
    lab.eventually("the file is read again", async || {
        after = lab.list().await?.reload;
        Ok(after != before)
    })
    .await?;
    after.context("it was")
}

/// A worker that asks its manager for work once an hour, and for none that the manager has.
async fn idle_lab() -> anyhow::Result<(Lab, String)> {
    let lab = Lab::prepare(bins(), Options { sectors: 1, ..Options::default() }).await?;
    let wanted = std::fs::read_to_string(lab.worker_file())?;
    let wanted = wanted.replace("recover_interval = \"500ms\"", "recover_interval = \"1h\"");
    std::fs::write(lab.worker_file(), wanted.replace("[sealing]\n", "[sealing]\nallowed_miners = [1]\n"))?;
    Ok((lab, wanted))
}

#[tokio::test]
async fn a_running_worker_takes_its_file_over_as_a_whole_or_not_at_all() -> anyhow::Result<()> {
    let (mut lab, wanted) = idle_lab().await?;
    std::fs::write(lab.mood(), "pc1 hang")?;
    lab.worker.start().await?;
    let pid = lab.worker.pid();
    lab.thread_shows("nothing to do", |t| t.state == ThreadState::Idle && t.sector.is_none()).await?;
    let file = lab.worker_file();

    // One change that is good and one that is bad: neither holds.
    for (bad, told) in [
        ("[sealing]\nmax_retrys = 7\n", "unknown key `sealing.max_retrys`"),
        ("[sealing]\nmax_retries = \n", "worker.toml:"),
        (
            "[metrics]\nenable = true\n[sealing]\n",
            "`metrics.enable` cannot change while the worker runs: a restart is needed",
        ),
    ] {
        std::fs::write(&file, wanted.replace("[sealing]\n", bad))?;
        let refused = read_again(&lab).await?;
        ensure!(refused.changes.is_empty() && refused.refused.concat().contains(told), "{refused:?}");
        let (code, _, said) = tell(&lab, &["reload"]).await?;
        ensure!(code == Some(2) && said.contains(told) && said.contains("nothing of"), "{code:?} {said}");
        let thread = lab.thread_shows("nothing changed", |t| t.state == ThreadState::Idle).await?;
        ensure!(thread.sector.is_none(), "{thread:?}");
        ensure!(info(&lab).await?.threads[0].settings["allowed_miners"].contains('1'));
        let (_, listed, _) = tell(&lab, &["list"]).await?;
        ensure!(listed.contains("refused as a whole") && listed.contains(told), "{listed}");
    }

    // The good one alone holds at once, although the thread would have asked again in an hour.
    let good = wanted.replace("[sealing]\n", "[processors.limitation.concurrent]\npc1 = 1\n\n[sealing]\n");
    std::fs::write(&file, &good)?;
    let taken = read_again(&lab).await?;
    ensure!(taken.refused.is_empty(), "{taken:?}");
    let changes = taken.changes.join("; ");
    ensure!(changes.contains("allowed_miners: ") && changes.contains("-> all (thread 0)"), "{changes}");
    ensure!(changes.contains("processors.limitation.concurrent.pc1: none -> 1"), "{changes}");
    works_at(&lab, "pc1").await?;
    ensure!(info(&lab).await?.concurrent.get("pc1") == Some(&1));
    ensure!(!order(&lab, &["reload"]).await?.changed, "it is in force");
    std::fs::write(&file, good.replace("seal_interval = \"10ms\"", "seal_interval = \"20ms\""))?;
    let answer = order(&lab, &["reload"]).await?;
    ensure!(answer.changed && answer.message.contains("seal_interval: 10ms -> 20ms (thread 0)"), "{answer:?}");

    // The sector in work knows nothing of all that.
    ensure!(order(&lab, &["pause", "-i", "0", "--now"]).await?.changed);
    lab.thread_shows("paused", |t| t.state == ThreadState::Paused && t.failures == 0).await?;
    std::fs::write(lab.mood(), "")?;
    order(&lab, &["resume", "-i", "0"]).await?;
    lab.finish().await?;
    ensure!(lab.worker.pid() == pid && lab.worker.is_running());
    ensure!(lab.worker.drain().await? == Some(0));
    Ok(())
}

#[tokio::test]
async fn a_sealing_store_says_what_its_thread_does_otherwise() -> anyhow::Result<()> {
    let (mut lab, _) = idle_lab().await?;
    std::fs::write(lab.mood(), "pc1 hang")?;
    let says = lab.path("sealing/config.toml");
    std::fs::write(&says, "[sealing]\nallowed_miners = []\nmax_retrys = 1\n")?;
    let at = |line: &str| format!("{}:{line}:1:", says.display());
    for args in [&["daemon"][..], &["config", "check"]] {
        let file = path_text(&lab.worker_file())?;
        let last = if args[0] == "daemon" { vec!["-c", &file] } else { vec![file.as_str()] };
        let all: Vec<&str> = args.iter().copied().chain(last).collect();
        let output = program::run(&lab.bins().worker, &all).await?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(2), "{args:?}: {said}");
        ensure!(
            said.contains(&at("2")) && said.contains(&at("3")) && said.contains("did you mean `max_retries`?"),
            "{said}"
        );
    }
    std::fs::write(&says, "[sealing]\nmax_retries = 2\n")?;
    lab.worker.start().await?;
    lab.thread_shows("nothing to do", |t| t.state == ThreadState::Idle && t.sector.is_none()).await?;
    let thread = info(&lab).await?.threads.remove(0);
    ensure!(thread.by_store && thread.watched && thread.settings["max_retries"] == "2", "{thread:?}");

    // Nobody tells the worker of this but the kernel. It is replaced as an editor does it.
    let new = says.with_extension("new");
    std::fs::write(&new, format!("[sealing]\nallowed_miners = [{}]\nmax_retries = 3\n", lab.miner))?;
    std::fs::rename(&new, &says)?;
    works_at(&lab, "pc1").await?;
    let child = |lab: &Lab| std::fs::read_to_string(lab.diary(damocles_tests::lab::Parent::Worker)).unwrap_or_default();
    let before = child(&lab);

    std::fs::write(&says, "[sealing]\nmax_retries = \"many\"\n")?;
    let thread = lab.thread_shows("the broken file", |t| t.settings_refused.is_some()).await?;
    let why = thread.settings_refused.unwrap_or_default();
    ensure!(why.contains(&format!("{}:2:15: error: ", says.display())), "{why}");
    ensure!(info(&lab).await?.threads[0].settings["max_retries"] == "3", "the former settings stay");
    ensure!(tell(&lab, &["list"]).await?.1.contains("what its sealing store says is refused"));
    ensure!(tell(&lab, &["info"]).await?.1.contains("config.toml:2:15"));
    let (code, _, said) = tell(&lab, &["reload"]).await?;
    ensure!(code == Some(2) && said.contains("config.toml:2:15"), "{code:?} {said}");

    std::fs::write(&says, "[sealing]\nmax_retries = 4\n")?;
    lab.thread_shows("the mended file", |t| t.settings_refused.is_none()).await?;
    lab.eventually("what it says", async || Ok(info(&lab).await?.threads[0].settings["max_retries"] == "4")).await?;
    std::fs::remove_file(&says)?;
    lab.eventually("the worker's file holds again", async || {
        let thread = info(&lab).await?.threads.remove(0);
        Ok(!thread.by_store && thread.settings["max_retries"] == "5")
    })
    .await?;
    works_at(&lab, "pc1").await?;
    ensure!(child(&lab) == before, "the sector in work was not disturbed");
    ensure!(lab.worker.stop().await? == Some(75), "what ran has not ended");
    Ok(())
}
