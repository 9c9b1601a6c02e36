//! `damocles-manager wallet` as an operator uses it.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

use damocles_chain::{
    lotus_json::from_core,
    signer::{SignRequest, verify},
    venus::testing::FakeGateway,
};
use fvm_shared::{econ::TokenAmount, message::Message};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery staple";
const KEY: &str = "7b2254797065223a22736563703235366b31222c22507269766174654b6579223a226b35507976337148327349586343595a58594f5775453149326e32554539436861556b6c4e36695a5763453d227d";
const ADDRESS: &str = "t1fib3pv7jua2ockdugtz7viz3cyy6lkhh7rfx3sa";
/// `lotus wallet sign` with that key of the text `DUKE`.
const SIGNATURE: &str = "0103bff286f1371c1a4ce8e33c29d6a20eeb53f17970190d12c5a1c0fc4be9a56e766250d5a82dda2179fa90ae297696d1dfaa9eea8f2f833da0cf87b927294eb700";

struct Home {
    dir: TempDir,
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        home.secret("password", PASSWORD);
        let made = home.wallet(&["setpwd", "--memory", "1", "--passes", "1"]);
        assert_eq!(made.code, Some(0), "{}", made.err);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        writeln!(file, "{text}").unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_damocles-manager"));
        command.arg("--home").arg(self.dir.path()).arg("wallet").args(args);
        command.env_remove("DAMOCLES_LOG").env_remove("RUST_LOG").env_remove("DAMOCLES_PATH");
        command
    }

    /// With the password from its file.
    fn wallet(&self, args: &[&str]) -> Ended {
        let mut command = self.command(args);
        command.arg("--password-file").arg(self.path("password"));
        ended(command, None)
    }
}

fn ended(mut command: Command, input: Option<&str>) -> Ended {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing closes its end.
    let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn keys_come_and_go() {
    let home = Home::new();
    let made = home.wallet(&["new", "bls"]);
    assert!(made.out.starts_with("t3"), "{}", made.err);
    let mut import = home.command(&["import", "--password-env", "WALLET_PASSWORD"]);
    import.env("WALLET_PASSWORD", PASSWORD);
    assert_eq!(ended(import, Some(&format!("{KEY}\n"))).out, ADDRESS);
    let again = home.wallet(&["import", &home.secret("key", KEY).display().to_string()]);
    assert_eq!(again.code, Some(10), "{}", again.err);
    assert!(again.err.contains("already"), "{}", again.err);

    assert_eq!(home.wallet(&["default"]).out, made.out);
    assert_eq!(home.wallet(&["default", ADDRESS]).out, ADDRESS);
    assert_eq!(home.wallet(&["export", ADDRESS]).out, KEY);
    assert_eq!(home.wallet(&["sign", ADDRESS, "44554b45"]).out, SIGNATURE);
    let verified = ended(home.command(&["verify", ADDRESS, "44554b45", SIGNATURE]), None);
    assert_eq!((verified.code, verified.out.as_str()), (Some(0), "valid"));
    let verified = ended(home.command(&["verify", ADDRESS, "44554b46", SIGNATURE]), None);
    assert_eq!((verified.code, verified.out.as_str()), (Some(1), "not valid"));

    assert_eq!(home.wallet(&["delete", ADDRESS]).code, Some(0));
    let list: serde_json::Value = serde_json::from_str(&home.wallet(&["list", "--json"]).out).unwrap();
    assert_eq!(list.pointer("/keys/0/address").unwrap(), made.out.as_str());
    assert!(list.pointer("/keys/1").is_none());
    let all = home.wallet(&["list", "--trash"]).out;
    assert!(all.contains(ADDRESS) && all.contains("trash"), "{all}");
    let gone = home.wallet(&["export", ADDRESS]);
    assert_eq!((gone.code, gone.out.as_str()), (Some(10), ""));
    assert!(gone.err.contains("hint: "), "{}", gone.err);
    assert_eq!(home.wallet(&["restore", ADDRESS]).code, Some(0));
    assert_eq!(home.wallet(&["sign", ADDRESS, "44554b45"]).out, SIGNATURE);
}

#[test]
fn what_a_key_may_sign_is_shown_and_kept() {
    let home = Home::new();
    home.wallet(&["import", &home.secret("key", KEY).display().to_string()]);
    let set = home.wallet(&["policy", ADDRESS, "--method", "Send", "--receiver", "f01000", "--daily", "5"]);
    let text = format!("{ADDRESS} may sign Send to t01000, 5 FIL a day\nsigned away today: 0 FIL");
    assert_eq!(set.out, text, "{}", set.err);
    assert_eq!(home.wallet(&["policy", ADDRESS]).out, text);
    let refused = home.wallet(&["sign", ADDRESS, "44554b45"]);
    assert_eq!(refused.code, Some(10));
    assert!(refused.err.contains("policy") && refused.err.contains("unknown"), "{}", refused.err);
    // What is not named stays; more than before is asked about.
    let less = format!("{ADDRESS} may sign Send to t01000, 3 FIL a day\nsigned away today: 0 FIL");
    assert_eq!(home.wallet(&["policy", ADDRESS, "--daily", "3"]).out, less);
    let wider: [&[&str]; 4] = [&["--daily", "4"], &["--receiver", "f01001"], &["--no-daily"], &["--anything"]];
    for more in wider {
        let args: Vec<&str> = ["policy", ADDRESS].iter().chain(more).copied().collect();
        let refused = home.wallet(&args);
        assert_eq!(refused.code, Some(2), "{more:?}: {}", refused.out);
        assert!(refused.err.contains("--really-do-it"), "{more:?}: {}", refused.err);
    }
    assert_eq!(home.wallet(&["policy", ADDRESS]).out, less);
    let anything = home.wallet(&["policy", ADDRESS, "--anything", "--really-do-it"]);
    assert_eq!(anything.out, format!("{ADDRESS} may sign anything"));
    assert_eq!(home.wallet(&["sign", ADDRESS, "44554b45"]).out, SIGNATURE);
}

#[test]
fn passwords_change_and_wrong_ones_are_slowed_down() {
    let home = Home::new();
    let new = home.secret("new", "another good password");
    let changed =
        home.wallet(&["setpwd", "--memory", "1", "--passes", "1", "--new-password-file", &new.display().to_string()]);
    assert_eq!(changed.code, Some(0), "{}", changed.err);
    let wrong = home.wallet(&["list"]);
    assert_eq!(wrong.code, Some(10));
    assert!(wrong.err.contains("the password does not open the wallet"), "{}", wrong.err);
    let mut right = home.command(&["list", "--password-file"]);
    right.arg(&new);
    let soon = ended(right, None);
    // The pause of one second may be over on a slow machine.
    assert!(matches!(soon.code, Some(0 | 75)), "{}", soon.err);

    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut open = home.command(&["list", "--password-file"]);
    open.arg(&new);
    let exposed = ended(open, None);
    assert_eq!(exposed.code, Some(2));
    assert!(exposed.err.contains("chmod 600"), "{}", exposed.err);
    let unset = ended(home.command(&["list", "--password-env", "DAMOCLES_NO_SUCH_VARIABLE"]), None);
    assert_eq!(unset.code, Some(2));
    let nowhere = home.wallet(&["list", "--wallet", "/nonexistent/wallet"]);
    assert!(nowhere.err.contains("/nonexistent/wallet") && nowhere.err.contains("hint: "), "{}", nowhere.err);
}

/// A `wallet run` that ends with its value.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(&["run", "--child", "--listen", "127.0.0.1:0"]);
        command.args(args).arg("--password-file").arg(home.path("password"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = ready.get("listening").and_then(|a| a.as_str()).unwrap().to_owned();
        Self { child, address }
    }

    fn stop(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_running_wallet_signs_for_those_with_the_token() {
    use damocles_chain::{
        rpc::Endpoint,
        signer::{Purpose, SignRequest, Signer as _, SignerErrorKind},
        wallet::RemoteWallet,
    };
    let home = Home::new();
    home.wallet(&["import", &home.secret("key", KEY).display().to_string()]);
    let running = Running::start(&home, &["--auto-lock", "1h"]);
    assert_eq!((mode_of(&home.path("wallet-token")), mode_of(&home.path("wallet.sock"))), (0o600, 0o600));
    let token = std::fs::read_to_string(home.path("wallet-token")).unwrap();
    let endpoint: Endpoint = format!("http://{}", running.address).parse().unwrap();
    let remote = RemoteWallet::new(endpoint.clone().with_token(token.trim())).unwrap();
    let stranger = RemoteWallet::new(endpoint).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = ADDRESS.parse().unwrap();
    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"DUKE");
    let sign = |wallet: &RemoteWallet| runtime.block_on(wallet.sign(&address, &text));
    assert_eq!(hex::encode(sign(&remote).unwrap().bytes), SIGNATURE.get(2..).unwrap());
    assert_eq!(sign(&stranger).unwrap_err().kind(), SignerErrorKind::Denied);

    let state = || ended(home.command(&["lock-state"]), None).out;
    assert_eq!(state(), "unlocked");
    assert_eq!(ended(home.command(&["lock"]), None).code, Some(0));
    assert_eq!(state(), "locked");
    assert_eq!(sign(&remote).unwrap_err().kind(), SignerErrorKind::Locked);
    assert_eq!(home.wallet(&["unlock"]).code, Some(0));
    assert_eq!(state(), "unlocked");
    sign(&remote).unwrap();
    // Keys that are made beside it are there at once.
    let made = home.wallet(&["new", "secp256k1"]).out.parse().unwrap();
    assert!(runtime.block_on(remote.has(&made)).unwrap());

    assert_eq!(running.stop(), Some(0));
    assert!(!home.path("wallet.sock").exists());
    let nobody = ended(home.command(&["lock-state"]), None);
    assert_eq!(nobody.code, Some(75));
    assert!(nobody.err.contains("wallet.sock") && nobody.err.contains("hint: "), "{}", nobody.err);
}

const CLUSTER: &str = "hunter2.of.the.cluster";

/// A gateway, and the runtime that it lives in.
struct Cluster {
    gateway: FakeGateway,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { gateway: runtime.block_on(FakeGateway::start(CLUSTER)).unwrap(), runtime }
    }

    /// Waits until the gateway knows these accounts and keys, and no others.
    fn knows(&self, accounts: &[&str], keys: &[&str]) {
        let keys: BTreeSet<_> = keys.iter().map(|key| from_core(&key.parse().unwrap()).unwrap()).collect();
        let holds = |gateway: &FakeGateway| {
            let wallets = gateway.wallets();
            wallets
                .iter()
                .any(|(theirs, known)| theirs == accounts && known.iter().copied().collect::<BTreeSet<_>>() == keys)
        };
        let waiting = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), self.gateway.until(holds)).await });
        assert!(waiting.is_ok(), "{accounts:?} {keys:?}: {:?}", self.gateway.wallets());
    }
}

#[test]
fn a_running_wallet_signs_for_a_cluster_and_tells_it_of_keys_that_come_and_go() {
    let home = Home::new();
    home.wallet(&["import", &home.secret("key", KEY).display().to_string()]);
    let cluster = Cluster::start();
    let url = cluster.gateway.url();
    let shown = home.wallet(&["run", "--account", "miners", "--gateway", &format!("hunter2:{url}")]);
    assert_eq!(shown.code, Some(2), "{}", shown.err);
    assert!(shown.err.contains("--gateway-token-file") && !shown.err.contains("hunter2"), "{}", shown.err);

    let token = home.secret("cluster-token", CLUSTER).display().to_string();
    let offer = ["--gateway", &url, "--gateway-token-file", &token, "--account", "miners"];
    let running = Running::start(&home, &offer);
    cluster.knows(&["miners"], &[ADDRESS]);
    let made = home.wallet(&["new", "bls"]).out;
    let second = made.as_str();
    cluster.knows(&["miners"], &[ADDRESS, second]);
    assert_eq!(ended(home.command(&["lock"]), None).code, Some(0));
    cluster.knows(&["miners"], &[]);
    assert_eq!(home.wallet(&["unlock"]).code, Some(0));
    cluster.knows(&["miners"], &[ADDRESS, second]);
    for (args, known) in [
        (&["delete", second][..], &[ADDRESS][..]),
        (&["restore", second], &[ADDRESS, second]),
        // A policy that does not allow the gateway's challenge.
        (&["policy", second, "--messages"], &[ADDRESS]),
    ] {
        let changed = home.wallet(args);
        assert_eq!(changed.code, Some(0), "{}", changed.err);
        cluster.knows(&["miners"], known);
    }
    let address = from_core(&ADDRESS.parse().unwrap()).unwrap();
    let message = Message {
        version: 0,
        from: address,
        to: address,
        sequence: 3,
        value: TokenAmount::from_atto(1),
        method_num: 0,
        params: Default::default(),
        gas_limit: 1000,
        gas_fee_cap: TokenAmount::from_atto(200),
        gas_premium: TokenAmount::from_atto(100),
    };
    let (to_sign, meta) = SignRequest::message(message).to_lotus();
    let signature = cluster.runtime.block_on(cluster.gateway.wallet_sign(address, &to_sign, &meta)).unwrap();
    assert!(verify(&address, &signature, &to_sign));

    let more = ended(home.command(&["support", "others", "third"]), None);
    assert_eq!(more.code, Some(0), "{}", more.err);
    cluster.knows(&["miners", "others", "third"], &[ADDRESS]);
    cluster.gateway.cut();
    cluster.knows(&["miners", "others", "third"], &[ADDRESS]);
    assert_eq!(running.stop(), Some(0));
    let nobody = ended(home.command(&["support", "others"]), None);
    assert_eq!(nobody.code, Some(75), "{}", nobody.err);
    assert!(nobody.err.contains("wallet.sock") && nobody.err.contains("wallet run"), "{}", nobody.err);

    // One that locks itself has no keys to offer.
    let all: Vec<&str> = offer.iter().copied().chain(["--auto-lock", "1s"]).collect();
    let running = Running::start(&home, &all);
    cluster.knows(&["miners"], &[]);
    assert_eq!(running.stop(), Some(0));
    let running = Running::start(&home, &[]);
    let alone = ended(home.command(&["support", "others"]), None);
    assert_eq!(alone.code, Some(2), "{}", alone.err);
    assert!(alone.err.contains("--gateway"), "{}", alone.err);
    assert_eq!(running.stop(), Some(0));
}
