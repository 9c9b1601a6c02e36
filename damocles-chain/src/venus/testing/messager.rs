//! A messager that signs with keys of its own and sends to a node.

use super::{
    FakeServer, Fault,
    fault::{Answer, Faults, part},
};
use crate::{
    heads::{Heads, Pace},
    lotus_json::{Lotus, MessageReceipt, MsgLookup, SignedMessage, TipSet, message_cid, signed_message_cid, to_core},
    rpc::{Endpoint, RpcClient},
    signer::{SignRequest, Signer},
    venus::messager::{MessagerRecord, MessagerState, MessagerStatus, Replacement, SendSpec},
};
use cid::Cid;
use damocles_core::chain::{ChainError, ChainErrorKind};
use futures::{FutureExt as _, StreamExt as _};
use fvm_shared::{address::Address as ChainAddress, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What lies so deep is not looked for again.
const DEEP: i64 = 30;
const LOOK: Duration = Duration::from_millis(5);

/// sophon-messager on loopback: the methods that are used here, over HTTP and WebSocket, with its states. It works at
/// every head of the node that it was given. Messages are forgotten with the value.
#[derive(Debug)]
pub struct FakeMessager {
    server: FakeServer,
    desk: Arc<Desk>,
    _alive: DropGuard,
}

#[derive(Debug)]
struct Desk {
    node: Arc<RpcClient>,
    signer: Arc<dyn Signer>,
    token: String,
    faults: Faults,
    book: Mutex<Book>,
    working: tokio::sync::Mutex<()>,
    idle: AtomicBool,
    worked: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    records: Vec<MessagerRecord>,
    nonces: HashMap<ChainAddress, u64>,
    height: i64,
}

impl Book {
    fn find(&self, what: impl Fn(&MessagerRecord) -> bool) -> Result<MessagerRecord, String> {
        let found = self.records.iter().find(|record| what(record)).cloned();
        let mut found = found.ok_or_else(|| "record not found".to_owned())?;
        if matches!(found.status.state, MessagerState::OnChain | MessagerState::NonceConflict) {
            found.status.confidence = self.height - found.status.height;
        }
        Ok(found)
    }

    fn named(&self, id: &str) -> Result<MessagerRecord, String> {
        self.find(|record| record.status.id == id)
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut MessagerRecord)) {
        if let Some(record) = self.records.iter_mut().find(|record| record.status.id == id) {
            change(record);
        }
    }
}

impl FakeMessager {
    /// Starts one that sends to `node`, signs by `signer` and wants this token.
    ///
    /// # Errors
    ///
    /// No port is free, or the node's endpoint cannot be used.
    pub async fn start(node: Endpoint, signer: Arc<dyn Signer>, token: &str) -> Result<Self, ChainError> {
        let node = Arc::new(RpcClient::new(node)?);
        let heads = Heads::new(Arc::<RpcClient>::clone(&node), Pace::new(LOOK, Duration::from_secs(20)));
        let desk = Arc::new(Desk {
            node,
            signer,
            token: token.to_owned(),
            faults: Faults::default(),
            book: Mutex::default(),
            working: tokio::sync::Mutex::default(),
            idle: AtomicBool::new(false),
            worked: watch::Sender::new(0),
        });
        let answering = Arc::clone(&desk);
        let server = FakeServer::start(Arc::new(move |arrived| {
            let desk = Arc::clone(&answering);
            async move {
                let authorized = arrived.header("authorization") == format!("Bearer {}", desk.token)
                    && arrived.header("x-venus-api-namespace") == "messager.IMessager"
                    && arrived.path == "/rpc/v0";
                let work = |method: String, params: Vec<Value>| {
                    let desk = Arc::clone(&desk);
                    async move {
                        if !authorized {
                            return Err(format!("missing permission to invoke '{method}'"));
                        }
                        desk.call(&method, &params).await
                    }
                };
                desk.faults.answer(&arrived, "Message", work).await
            }
            .boxed()
        }))
        .await
        .map_err(|e| ChainError::new(ChainErrorKind::Unavailable, "start messager").because(e))?;
        let alive = CancellationToken::new();
        let (working, ends) = (Arc::clone(&desk), alive.clone());
        tokio::spawn(async move {
            let work = async {
                let mut changes = heads.changes();
                while changes.next().await.is_some() {
                    working.work().await;
                }
            };
            ends.run_until_cancelled(work).await;
        });
        Ok(Self { server, desk, _alive: alive.drop_guard() })
    }

    /// Its URL, without path and token.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Makes the next calls of a method, without prefix, go wrong.
    pub fn strike(&self, method: &str, fault: &Fault, times: usize) {
        self.desk.faults.strike(method, fault, times);
    }

    /// Forgets all faults that have not struck.
    pub fn forgive(&self) {
        self.desk.faults.forgive();
    }

    /// The parameters of all calls of a method, without prefix.
    pub fn called(&self, method: &str) -> Vec<Value> {
        self.desk.faults.called(method)
    }

    /// Whether it leaves messages where they are from now on.
    pub fn idle(&self, idle: bool) {
        self.desk.idle.store(idle, Ordering::SeqCst);
    }

    /// Everything in its book.
    pub fn records(&self) -> Vec<MessagerRecord> {
        self.desk.book.lock().records.clone()
    }

    /// Forgets everything, as one whose database was lost.
    pub fn forget(&self) {
        *self.desk.book.lock() = Book::default();
    }

    /// Waits until it has worked through one more head, however that went.
    pub async fn worked(&self) {
        let mut worked = self.desk.worked.subscribe();
        worked.mark_unchanged();
        // The other end lives as long as this value.
        let _ = worked.changed().await;
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        self.server.cut();
    }
}

impl Desk {
    async fn call(&self, method: &str, params: &[Value]) -> Answer {
        match method {
            "PushMessageWithId" => self.push(params).await,
            "HasMessageByUid" => Ok(json!(self.book.lock().named(&part::<String>(params, 0)?).is_ok())),
            "GetMessageByUid" => shown(self.book.lock().named(&part::<String>(params, 0)?)?),
            "GetMessageBySignedCid" => {
                let Lotus(cid) = part::<Lotus<Cid>>(params, 0)?;
                shown(self.book.lock().find(|record| record.status.signed_cid == Some(cid))?)
            }
            "GetMessageByUnsignedCid" => {
                let Lotus(cid) = part::<Lotus<Cid>>(params, 0)?;
                shown(self.book.lock().find(|record| record.status.unsigned_cid == Some(cid))?)
            }
            "GetMessageByFromAndNonce" => {
                let (Lotus(from), nonce) = (part::<Lotus<ChainAddress>>(params, 0)?, part::<u64>(params, 1)?);
                shown(self.book.lock().find(|r| r.message.from == from && r.message.sequence == nonce)?)
            }
            "WaitMessage" => self.wait(&part::<String>(params, 0)?, part(params, 1)?).await,
            "ReplaceMessage" => self.replace(part(params, 0)?).await,
            "RepublishMessage" => {
                let record = self.book.lock().named(&part::<String>(params, 0)?)?;
                let signed = record.signed().filter(|_| record.status.state == MessagerState::Fill);
                self.send(&signed.ok_or_else(|| format!("need FillMsg got {}", record.status.state))?).await?;
                Ok(Value::Null)
            }
            "MarkBadMessage" => {
                let id: String = part(params, 0)?;
                self.book.lock().change(&id, |record| record.status.state = MessagerState::Failed);
                Ok(json!({}))
            }
            "RecoverFailedMsg" => Ok(json!(self.recover(part::<Lotus<ChainAddress>>(params, 0)?.0))),
            "WalletHas" => {
                let Lotus(address) = part::<Lotus<ChainAddress>>(params, 0)?;
                self.signer.has(&to_core(&address)).await.map(|has| json!(has)).map_err(|e| e.to_string())
            }
            other => Err(format!("method 'Message.{other}' not found")),
        }
    }

    async fn push(&self, params: &[Value]) -> Answer {
        let (id, Lotus(mut message)) = (part::<String>(params, 0)?, part::<Lotus<Message>>(params, 1)?);
        let meta: Option<SendSpec> = part(params, 2)?;
        if id.is_empty() {
            return Err("empty uid".to_owned());
        }
        if !self.signer.has(&to_core(&message.from)).await.map_err(|e| e.to_string())? {
            return Err(format!("signer address {} not exists", to_core(&message.from)));
        }
        message.sequence = 0;
        let status = MessagerStatus {
            id: id.clone(),
            unsigned_cid: None,
            signed_cid: None,
            signature: None,
            height: 0,
            confidence: 0,
            receipt: None,
            tip_set_key: Vec::new(),
            meta,
            wallet_name: "damocles".to_owned(),
            state: MessagerState::UnFill,
            error_msg: String::new(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            updated_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let mut book = self.book.lock();
        if book.named(&id).is_ok() {
            return Err("UNIQUE constraint failed: messages.id".to_owned());
        }
        book.records.push(MessagerRecord { message, status });
        Ok(json!(id))
    }

    async fn wait(&self, id: &str, confidence: i64) -> Answer {
        loop {
            let mut worked = self.worked.subscribe();
            worked.mark_unchanged();
            let record = self.book.lock().named(id)?;
            match record.status.state {
                MessagerState::Failed => return shown(record),
                MessagerState::OnChain | MessagerState::NonceConflict if record.status.confidence > confidence => {
                    return shown(record);
                }
                _ => worked.changed().await.map_err(|_| "exit by client ".to_owned())?,
            }
        }
    }

    async fn replace(&self, by: Replacement) -> Answer {
        let _alone = self.working.lock().await;
        let mut record = self.book.lock().named(&by.id).map_err(|e| format!("found message {e}"))?;
        if record.status.state == MessagerState::OnChain {
            return Err("message already on chain".to_owned());
        }
        if by.auto {
            let least = record.message.gas_premium.clone() * 5u64;
            let least = TokenAmount::from_atto(least.atto() / 4) + TokenAmount::from_atto(1);
            record.message.gas_premium = least.clone();
            record.message.gas_fee_cap = record.message.gas_fee_cap.clone().max(least) * 2u64;
            cap(&mut record.message, &by.max_fee);
        } else {
            if !by.gas_premium.is_positive() {
                return Err(format!("gas premium({}) must bigger than zero", by.gas_premium.atto()));
            }
            record.message.gas_premium = by.gas_premium;
            record.message.gas_fee_cap = by.gas_feecap;
            if by.gas_limit > 0 {
                record.message.gas_limit = u64::try_from(by.gas_limit).unwrap_or_default();
            }
        }
        let signed = self.signed(record.message).await?;
        self.filled(&by.id, &signed);
        self.send(&signed).await?;
        Ok(json!(Lotus(signed_message_cid(&signed))))
    }

    fn recover(&self, from: ChainAddress) -> Vec<String> {
        let mut book = self.book.lock();
        let failed = book.records.iter_mut().filter(|record| {
            record.message.from == from
                && record.status.state == MessagerState::Failed
                && record.status.signature.is_some()
        });
        let again = failed.map(|record| {
            record.status.state = MessagerState::Fill;
            record.status.id.clone()
        });
        again.collect()
    }

    async fn signed(&self, message: Message) -> Result<SignedMessage, String> {
        let request = SignRequest::message(message.clone());
        let signature = self.signer.sign(&to_core(&message.from), &request).await.map_err(|e| e.to_string())?;
        Ok(SignedMessage { message, signature })
    }

    fn filled(&self, id: &str, signed: &SignedMessage) {
        self.book.lock().change(id, |record| {
            record.message = signed.message.clone();
            record.status.signature = Some(signed.signature.clone());
            record.status.unsigned_cid = Some(message_cid(&signed.message));
            record.status.signed_cid = Some(signed_message_cid(signed));
            record.status.state = MessagerState::Fill;
            record.status.error_msg = String::new();
        });
    }

    async fn send(&self, signed: &SignedMessage) -> Result<(), String> {
        let sent = self.node.call::<Value>("MpoolPush", json!([signed])).await;
        sent.map(drop).map_err(|e| e.chain())
    }

    /// Sends what the node may have already: whatever it says, it is sent again at the next head.
    async fn publish(&self, signed: &SignedMessage) {
        let _ = self.send(signed).await;
    }

    /// One round, as after each head: what is on chain is noted, what is signed is sent, what is new is signed.
    async fn work(&self) {
        {
            let _alone = self.working.lock().await;
            if !self.idle.load(Ordering::SeqCst)
                && let Ok(head) = self.node.call::<TipSet>("ChainHead", json!([])).await
            {
                self.book.lock().height = head.height;
                for record in self.records() {
                    // What fails is tried at the next head, as by the real one.
                    if let Err(e) = self.work_on(&head, &record).await {
                        self.book.lock().change(&record.status.id, |record| record.status.error_msg = e);
                    }
                }
            }
        }
        self.worked.send_modify(|n| *n += 1);
    }

    fn records(&self) -> Vec<MessagerRecord> {
        self.book.lock().records.clone()
    }

    async fn work_on(&self, head: &TipSet, record: &MessagerRecord) -> Result<(), String> {
        let id = &record.status.id;
        match record.status.state {
            MessagerState::UnFill => {
                let expires = record.status.meta.as_ref().map_or(0, |meta| meta.expire_epoch);
                if expires != 0 && expires <= head.height {
                    self.book.lock().change(id, |record| record.status.state = MessagerState::Failed);
                    return Ok(());
                }
                let signed = self.fill(record).await?;
                self.filled(id, &signed);
                self.book.lock().nonces.insert(signed.message.from, signed.message.sequence + 1);
                self.publish(&signed).await;
                Ok(())
            }
            MessagerState::Fill | MessagerState::OnChain | MessagerState::NonceConflict => {
                let (Some(signed), Some(cid)) = (record.signed(), record.status.signed_cid) else { return Ok(()) };
                let deep = record.status.height != 0 && head.height - record.status.height > DEEP;
                if deep {
                    return Ok(());
                }
                self.look(id, &cid).await?;
                let unseen = self.book.lock().named(id)?.status.state == MessagerState::Fill;
                if unseen {
                    self.publish(&signed).await;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn look(&self, id: &str, cid: &Cid) -> Result<(), String> {
        let params = json!([[], Lotus(*cid), -1, true]);
        let found: Option<MsgLookup> = match self.node.call("StateSearchMsg", params).await {
            Ok(found) => found,
            Err(e) if e.chain().contains("equal nonce") => {
                // What another message with this nonce came to is shown as if it were this one's.
                self.book.lock().change(id, |record| {
                    record.status.state = MessagerState::NonceConflict;
                    record.status.receipt = Some(MessageReceipt::default());
                });
                return Ok(());
            }
            Err(e) => return Err(e.chain()),
        };
        let place = match &found {
            None => None,
            Some(found) => {
                let tipset = |key: Vec<Cid>| self.node.call::<TipSet>("ChainGetTipSet", json!([Lotus(key)]));
                let child = tipset(found.tip_set.clone()).await.map_err(|e| e.chain())?;
                let key = child.parents().ok_or("a tipset without blocks")?;
                Some(tipset(key.0).await.map_err(|e| e.chain())?)
            }
        };
        self.book.lock().change(id, |record| match (found, place) {
            (Some(found), Some(place)) => {
                let same = Some(found.message) == record.status.signed_cid;
                record.status.state = if same { MessagerState::OnChain } else { MessagerState::NonceConflict };
                record.status.receipt = Some(found.receipt);
                (record.status.height, record.status.tip_set_key) = (place.height, place.cids);
            }
            _ => {
                record.status.state = MessagerState::Fill;
                (record.status.height, record.status.tip_set_key) = (0, Vec::new());
            }
        });
        Ok(())
    }

    async fn fill(&self, record: &MessagerRecord) -> Result<SignedMessage, String> {
        let spec = record.status.meta.clone().unwrap_or_default();
        let mut message = record.message.clone();
        let told: u64 = self.node.call("MpoolGetNonce", json!([Lotus(message.from)])).await.map_err(|e| e.chain())?;
        let used = self.book.lock().nonces.get(&message.from).copied().unwrap_or_default();
        message.sequence = told.max(used);
        let whole = message.gas_limit == 0;
        if whole {
            let params = json!([Lotus(message.clone()), null, []]);
            let estimated = self.node.call::<Lotus<Message>>("GasEstimateMessageGas", params).await;
            let Lotus(estimated) = estimated.map_err(|e| format!("gas estimate: {}", e.chain()))?;
            message = Message { sequence: message.sequence, ..estimated };
        } else {
            let params = json!([10, Lotus(message.from), message.gas_limit, []]);
            let premium = self.node.call::<Lotus<TokenAmount>>("GasEstimateGasPremium", params).await;
            message.gas_premium = premium.map_err(|e| e.chain())?.0;
            let params = json!([Lotus(message.clone()), 20, []]);
            let fee_cap = self.node.call::<Lotus<TokenAmount>>("GasEstimateFeeCap", params).await;
            message.gas_fee_cap = fee_cap.map_err(|e| e.chain())?.0;
        }
        cap(&mut message, &spec.max_fee);
        self.signed(message).await.map_err(|e| format!("sign msg: {e}"))
    }
}

/// Keeps a message's fee within bounds, as the real one does.
fn cap(message: &mut Message, most: &TokenAmount) {
    let total = message.gas_fee_cap.clone() * message.gas_limit;
    if most.is_zero() || total <= *most || message.gas_limit == 0 {
        return;
    }
    message.gas_fee_cap = TokenAmount::from_atto(most.atto() / message.gas_limit);
    message.gas_premium = message.gas_premium.clone().min(message.gas_fee_cap.clone());
}

fn shown(record: MessagerRecord) -> Answer {
    serde_json::to_value(record).map_err(|e| e.to_string())
}
