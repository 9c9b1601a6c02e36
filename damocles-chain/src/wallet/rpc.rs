//! Signing for other machines: the wallet's JSON-RPC.

use super::{LockState, Password, Wallet};
use crate::{
    lotus_json::{Lotus, from_core, parse_address, to_core},
    signer::{MsgMeta, SignRequest, Signer as _, SignerError, SignerErrorKind},
};
use damocles_core::{Address, Recovery, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use fvm_shared::address::Address as ChainAddress;
use jsonrpc_core::{Error as RpcFault, ErrorCode, MetaIoHandler, Metadata, Params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt, sync::Arc, time::Duration};

/// The longest request: a message of the largest size, in base64, with room to spare.
const MAX_REQUEST: usize = 1 << 20;
/// A signature takes milliseconds; a file system that hangs must not keep a caller for ever.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Codes of our own begin here, above Lotus': one for each kind of error.
const FIRST_CODE: i64 = 7_000;
/// Added to the code of an error that may go away by itself.
const RETRY: i64 = 100;
/// Lotus' code for everything.
const GENERIC: i64 = 1;

/// Every method that is served. Keys are made, imported, exported and deleted at the file only.
pub const METHODS: [&str; 8] = [
    "Filecoin.WalletList",
    "Filecoin.WalletHas",
    "Filecoin.WalletSign",
    "Filecoin.WalletDefaultAddress",
    "Filecoin.Version",
    "Filecoin.Lock",
    "Filecoin.Unlock",
    "Filecoin.LockState",
];

/// Who calls.
#[derive(Clone)]
pub enum WalletCaller {
    /// The wallet's owner, who came by a socket that only the owner may use: may also lock and unlock.
    Owner,
    /// Whoever came by the network, with the token that came along.
    Remote {
        /// What stood behind `Authorization: Bearer`.
        bearer: Option<String>,
    },
}

impl fmt::Debug for WalletCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "Owner",
            Self::Remote { .. } => "Remote(..)",
        })
    }
}

/// What a caller may do, once the token was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Nobody,
    Signer,
    Owner,
}

impl Metadata for Role {}

/// Dispatches requests to a wallet: request texts in, response texts out. Whoever owns the server hands them in.
///
/// It speaks as Lotus' wallet does (`WalletList`, `WalletHas`, `WalletSign` with what the bytes are), so that a node, a
/// gateway or another manager can sign with keys that lie here. A request to sign a message must carry the message, and
/// the key's policy is applied to it.
#[derive(Clone)]
pub struct WalletRpc {
    io: Arc<MetaIoHandler<Role>>,
    token: blake2b_simd::Hash,
}

impl fmt::Debug for WalletRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalletRpc").finish_non_exhaustive()
    }
}

impl WalletRpc {
    /// Serves a wallet to whoever knows the token.
    #[must_use]
    pub fn new(wallet: Wallet, token: &str) -> Self {
        let mut io = MetaIoHandler::default();
        let mut add = |name: &'static str, needs: Role, method: MethodFn| {
            let wallet = wallet.clone();
            io.add_method_with_meta(name, move |params: Params, role: Role| {
                let answer = if role < needs { denied(name, needs).boxed() } else { method(wallet.clone(), params) };
                async move {
                    let timed = tokio::time::timeout(TIMEOUT, answer).await;
                    timed.unwrap_or_else(|_| Err(fault(GENERIC, format!("{name} took too long"), None)))
                }
            });
        };
        add("Filecoin.WalletList", Role::Signer, |wallet, _| list(wallet).boxed());
        add("Filecoin.WalletHas", Role::Signer, |wallet, params| has(wallet, params).boxed());
        add("Filecoin.WalletSign", Role::Signer, |wallet, params| sign(wallet, params).boxed());
        add("Filecoin.WalletDefaultAddress", Role::Signer, |wallet, _| default_address(wallet).boxed());
        add("Filecoin.Version", Role::Signer, |_, _| async { Ok(version()) }.boxed());
        add("Filecoin.Lock", Role::Owner, |wallet, _| lock(wallet).boxed());
        add("Filecoin.Unlock", Role::Owner, |wallet, params| unlock(wallet, params).boxed());
        add("Filecoin.LockState", Role::Owner, |wallet, _| state(wallet).boxed());
        Self { io: Arc::new(io), token: digest(token) }
    }

    /// Answers one request, or a batch. `None` for notifications.
    pub async fn handle(&self, caller: &WalletCaller, request: &str) -> Option<String> {
        if request.len() > MAX_REQUEST {
            let message = format!("a request has at most {MAX_REQUEST} bytes");
            let error = json!({"code": -32600, "message": message});
            return Some(json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string());
        }
        self.io.handle_request(request, self.role_of(caller)).await
    }

    fn role_of(&self, caller: &WalletCaller) -> Role {
        match caller {
            WalletCaller::Owner => Role::Owner,
            // Hashes are compared in constant time.
            WalletCaller::Remote { bearer: Some(token) } if digest(token) == self.token => Role::Signer,
            WalletCaller::Remote { .. } => Role::Nobody,
        }
    }
}

/// Whether a wallet's keys can be used, as its RPC says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateAnswer {
    pub(super) locked: bool,
    #[serde(default)]
    pub(super) until: Option<Timestamp>,
}

impl From<LockState> for StateAnswer {
    fn from(state: LockState) -> Self {
        match state {
            LockState::Locked => Self { locked: true, until: None },
            LockState::Unlocked { until } => Self { locked: false, until },
        }
    }
}

type Answer = Result<Value, RpcFault>;
type MethodFn = fn(Wallet, Params) -> BoxFuture<'static, Answer>;

fn digest(token: &str) -> blake2b_simd::Hash {
    blake2b_simd::blake2b(token.as_bytes())
}

async fn denied(name: &'static str, needs: Role) -> Answer {
    let needs = if needs == Role::Owner { "the wallet's socket" } else { "sign" };
    Err(fault(GENERIC, format!("missing permission to invoke '{name}' (need '{needs}')"), None))
}

async fn list(wallet: Wallet) -> Answer {
    let held = wallet.addresses().await.map_err(refusal)?;
    let held: Vec<ChainAddress> = held.iter().filter_map(|a| from_core(a).ok()).collect();
    answer(&Lotus(held))
}

async fn has(wallet: Wallet, params: Params) -> Answer {
    let (address,): (Text,) = read(params)?;
    answer(&wallet.has(&address.address()?).await.map_err(refusal)?)
}

async fn sign(wallet: Wallet, params: Params) -> Answer {
    // The two parameters of a node's `WalletSign`, or the three of a wallet's.
    let values: Vec<Value> = read(params)?;
    let (address, to_sign, meta) = match <[Value; 3]>::try_from(values) {
        Ok([address, to_sign, meta]) => (address, to_sign, meta),
        Err(values) => match <[Value; 2]>::try_from(values) {
            Ok([address, to_sign]) => (address, to_sign, Value::Null),
            Err(_) => return Err(invalid("address, bytes and what they are for are wanted")),
        },
    };
    let address = part::<Text>(address)?.address()?;
    let to_sign = part::<Lotus<Vec<u8>>>(to_sign)?.0;
    let meta = part::<Option<MsgMeta>>(meta)?.unwrap_or_default();
    let request = SignRequest::from_lotus(to_sign, &meta).map_err(refusal)?;
    answer(&Lotus(wallet.sign(&address, &request).await.map_err(refusal)?))
}

async fn default_address(wallet: Wallet) -> Answer {
    let default = wallet.blocking(Wallet::default_address).await.map_err(refusal)?;
    match default.and_then(|a| from_core(&a).ok()) {
        Some(address) => answer(&Lotus(address)),
        None => answer(&"<empty>"),
    }
}

fn version() -> Value {
    json!({"Version": concat!("damocles-wallet-", env!("CARGO_PKG_VERSION")), "APIVersion": 0, "BlockDelay": 0})
}

async fn lock(wallet: Wallet) -> Answer {
    // Another thread may hold the wallet for as long as a password costs.
    let lock = |wallet: &Wallet| {
        wallet.lock();
        Ok(())
    };
    wallet.blocking(lock).await.map_err(refusal)?;
    Ok(Value::Null)
}

async fn unlock(wallet: Wallet, params: Params) -> Answer {
    let (password,): (String,) = read(params)?;
    let password = Password::new(password);
    wallet.blocking(move |wallet| wallet.unlock(&password)).await.map_err(refusal)?;
    Ok(Value::Null)
}

async fn state(wallet: Wallet) -> Answer {
    // Another thread may hold the wallet for as long as a password costs.
    let state = wallet.blocking(|wallet| Ok(wallet.state())).await.map_err(refusal)?;
    answer(&StateAnswer::from(state))
}

/// An address in Lotus' form, of either prefix.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text(String);

impl Text {
    fn address(&self) -> Result<Address, RpcFault> {
        parse_address(&self.0).map(|a| to_core(&a)).map_err(invalid)
    }
}

fn read<T: DeserializeOwned>(params: Params) -> Result<T, RpcFault> {
    params.parse()
}

fn part<T: DeserializeOwned>(value: Value) -> Result<T, RpcFault> {
    serde_json::from_value(value).map_err(invalid)
}

fn answer<T: Serialize>(value: &T) -> Answer {
    serde_json::to_value(value).map_err(|e| fault(GENERIC, e.to_string(), None))
}

fn invalid(why: impl fmt::Display) -> RpcFault {
    RpcFault::invalid_params(why.to_string())
}

fn fault(code: i64, message: String, data: Option<Value>) -> RpcFault {
    RpcFault { code: ErrorCode::ServerError(code), message, data }
}

/// What goes over the wire of an error, and comes back as the same kind.
const KINDS: [SignerErrorKind; 11] = [
    SignerErrorKind::NoKey,
    SignerErrorKind::Exposed,
    SignerErrorKind::Malformed,
    SignerErrorKind::Unsuitable,
    SignerErrorKind::Exists,
    SignerErrorKind::Io,
    SignerErrorKind::Locked,
    SignerErrorKind::Refused,
    SignerErrorKind::Unreachable,
    SignerErrorKind::Answer,
    SignerErrorKind::Denied,
];

fn refusal(error: SignerError) -> RpcFault {
    let place = KINDS.iter().position(|kind| *kind == error.kind()).and_then(|at| i64::try_from(at).ok());
    let code = place.map_or(GENERIC, |at| FIRST_CODE + at);
    let (code, after) = match error.recovery() {
        Recovery::Retry { after } if code != GENERIC => (code + RETRY, after),
        _ => (code, None),
    };
    let after_ms = after.and_then(|a| u64::try_from(a.as_millis()).ok());
    fault(code, error.chain(), Some(json!({"hint": error.hint(), "after_ms": after_ms})))
}

/// The kind that an error's code says, and whether it may go away by itself.
pub(super) fn kind_of(code: i64, message: &str) -> (SignerErrorKind, bool) {
    let known = |first: i64| usize::try_from(code.saturating_sub(first)).ok().and_then(|at| KINDS.get(at));
    if let Some(kind) = known(FIRST_CODE) {
        return (*kind, false);
    }
    if let Some(kind) = known(FIRST_CODE + RETRY) {
        return (*kind, true);
    }
    let text = message.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // The words of Lotus' and Venus' wallets.
    if has(&["missing permission", "unauthorized"]) {
        (SignerErrorKind::Denied, false)
    } else if has(&["key not found", "key info not found", "key is not found", "not exist"]) {
        (SignerErrorKind::NoKey, false)
    } else if has(&["locked", "password not set"]) {
        (SignerErrorKind::Locked, true)
    } else {
        (SignerErrorKind::Refused, false)
    }
}
