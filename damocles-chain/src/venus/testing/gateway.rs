//! A gateway that asks those who connect to it.

use super::{
    FakeServer, Fault, Socket,
    fault::{Answer, Faults, part, uuid},
    server::Arrived,
};
use crate::{
    lotus_json::{Lotus, form, text_of},
    signer::{MsgMeta, Purpose, verify},
    venus::gateway::{ConnectedCompleted, INIT_CONNECT, RequestEvent, ResponseEvent},
};
use damocles_core::chain::{ChainError, ChainErrorKind};
use futures::FutureExt as _;
use fvm_shared::{address::Address, crypto::signature::Signature};
use parking_lot::Mutex;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::{oneshot, watch};

/// sophon-gateway on loopback: proof and wallet channels, the challenge of keys, and the requests that a cluster makes
/// through it.
#[derive(Debug)]
pub struct FakeGateway {
    server: FakeServer,
    hub: Arc<Hub>,
}

#[derive(Debug)]
struct Hub {
    token: String,
    faults: Faults,
    random: [u8; 32],
    channels: Mutex<Vec<Channel>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<ResponseEvent>>>,
    late: Mutex<Vec<String>>,
    news: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Channel {
    id: String,
    number: u64,
    socket: Socket,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Proof { miner: String },
    Wallet { accounts: BTreeSet<String>, sign_bytes: Vec<u8>, addresses: Vec<Address> },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WalletPolicy {
    #[serde(default)]
    support_accounts: BTreeSet<String>,
    #[serde(default, with = "form")]
    sign_bytes: Vec<u8>,
}

impl FakeGateway {
    /// Starts one that wants this token.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn start(token: &str) -> Result<Self, ChainError> {
        let hub = Arc::new(Hub {
            token: token.to_owned(),
            faults: Faults::default(),
            random: rand::random(),
            channels: Mutex::default(),
            waiting: Mutex::default(),
            late: Mutex::default(),
            news: watch::Sender::new(0),
        });
        let answering = Arc::clone(&hub);
        let server = FakeServer::start(Arc::new(move |arrived| {
            let hub = Arc::clone(&answering);
            async move { hub.answer(arrived).await }.boxed()
        }))
        .await
        .map_err(|e| ChainError::new(ChainErrorKind::Unavailable, "start gateway").because(e))?;
        Ok(Self { server, hub })
    }

    /// Its URL, without path and token.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Makes the next calls of a method, without prefix, go wrong.
    pub fn strike(&self, method: &str, fault: &Fault, times: usize) {
        self.hub.faults.strike(method, fault, times);
    }

    /// The parameters of all calls of a method, without prefix.
    pub fn called(&self, method: &str) -> Vec<Value> {
        self.hub.faults.called(method)
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        self.server.cut();
    }

    /// The miners whose channels are open, one entry a channel.
    pub fn miners(&self) -> Vec<String> {
        let miner = |channel: Channel| match channel.kind {
            Kind::Proof { miner } => Some(miner),
            Kind::Wallet { .. } => None,
        };
        self.hub.live().into_iter().filter_map(miner).collect()
    }

    /// The accounts and the checked keys of every open wallet.
    pub fn wallets(&self) -> Vec<(Vec<String>, Vec<Address>)> {
        let wallet = |channel: Channel| match channel.kind {
            Kind::Proof { .. } => None,
            Kind::Wallet { accounts, addresses, .. } => Some((accounts.into_iter().collect(), addresses)),
        };
        self.hub.live().into_iter().filter_map(wallet).collect()
    }

    /// Waits until something about channels holds.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut news = self.hub.news.subscribe();
        while !holds(self) {
            // The other end lives as long as this value.
            let _ = news.changed().await;
        }
    }

    /// Answers that came for requests that nobody waits for.
    pub fn late(&self) -> usize {
        self.hub.late.lock().len()
    }

    /// Sends every channel a notification with this, whatever it is.
    pub fn say(&self, event: &Value) {
        for channel in self.hub.live() {
            channel.socket.send(note("xrpc.ch.val", json!([channel.number, event])));
        }
    }

    /// Asks a miner for a winning proof.
    ///
    /// # Errors
    ///
    /// What a gateway tells whoever makes blocks.
    pub async fn compute_proof(&self, miner: &str, request: &Value) -> Result<Value, String> {
        let ours = |channel: &Channel| matches!(&channel.kind, Kind::Proof { miner: theirs } if theirs == miner);
        let channel = self.hub.live().into_iter().find(ours);
        let channel = channel.ok_or_else(|| format!("no connections for this miner {miner}"))?;
        self.hub.ask(&channel.socket, channel.number, "ComputeProof", request).await
    }

    /// Asks the wallet that has a key for a signature.
    ///
    /// # Errors
    ///
    /// What a gateway tells a messager.
    pub async fn wallet_sign(&self, signer: Address, to_sign: &[u8], meta: &MsgMeta) -> Result<Signature, String> {
        let ours =
            |channel: &Channel| matches!(&channel.kind, Kind::Wallet { addresses, .. } if addresses.contains(&signer));
        let channel = self.hub.live().into_iter().find(ours);
        let channel = channel.ok_or_else(|| format!("cannot find any connection address {}", text_of(&signer)))?;
        self.hub.sign(&channel.socket, channel.number, signer, to_sign, meta).await
    }
}

fn note(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

impl Hub {
    fn live(&self) -> Vec<Channel> {
        let mut channels = self.channels.lock();
        channels.retain(|channel| !channel.socket.gone.is_cancelled());
        channels.clone()
    }

    fn tell(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    async fn answer(self: Arc<Self>, arrived: Arrived) -> Option<String> {
        let authorized = arrived.header("authorization") == format!("Bearer {}", self.token)
            && arrived.header("x-venus-api-namespace") == "gateway.IGateway"
            && arrived.path == "/rpc/v2";
        let work = |method: String, params: Vec<Value>| {
            let (hub, socket) = (Arc::clone(&self), arrived.socket.clone());
            async move {
                if !authorized {
                    return Err(format!("missing permission to invoke '{method}'"));
                }
                let socket = socket.ok_or("method needs a channel")?;
                hub.call(&method, &params, socket).await
            }
        };
        self.faults.answer(&arrived, "Gateway", work).await
    }

    async fn call(self: &Arc<Self>, method: &str, params: &[Value], socket: Socket) -> Answer {
        match method {
            "ListenProofEvent" => {
                let policy: Value = part(params, 0)?;
                let miner = policy.get("MinerAddress").and_then(Value::as_str).ok_or("no miner")?.to_owned();
                Ok(self.listen(socket, Kind::Proof { miner }))
            }
            "ListenWalletEvent" => {
                let WalletPolicy { support_accounts: accounts, sign_bytes } = part(params, 0)?;
                Ok(self.listen(socket, Kind::Wallet { accounts, sign_bytes, addresses: Vec::new() }))
            }
            "ResponseProofEvent" | "ResponseWalletEvent" => {
                let response: ResponseEvent = part(params, 0)?;
                let id = response.id.clone();
                let waiting = self.waiting.lock().remove(&id);
                if waiting.is_some_and(|waiting| waiting.send(response).is_ok()) {
                    return Ok(Value::Null);
                }
                self.late.lock().push(id.clone());
                Err(format!("request id {id} not exit"))
            }
            "AddNewAddress" => {
                let addresses = part::<Lotus<Vec<Address>>>(params, 1)?.0;
                let channel = self.named(&part::<String>(params, 0)?)?;
                for address in &addresses {
                    self.check(&channel, *address).await?;
                }
                self.change(&channel.id, |known, _| known.extend(addresses));
                Ok(Value::Null)
            }
            "RemoveAddress" => {
                let addresses = part::<Lotus<Vec<Address>>>(params, 1)?.0;
                let channel = self.named(&part::<String>(params, 0)?)?;
                self.change(&channel.id, |known, _| known.retain(|address| !addresses.contains(address)));
                Ok(Value::Null)
            }
            "SupportNewAccount" => {
                let account: String = part(params, 1)?;
                let channel = self.named(&part::<String>(params, 0)?)?;
                self.change(&channel.id, |_, accounts| accounts.extend([account]));
                Ok(Value::Null)
            }
            other => Err(format!("method 'Gateway.{other}' not found")),
        }
    }

    fn named(&self, id: &str) -> Result<Channel, String> {
        self.live().into_iter().find(|channel| channel.id == id).ok_or_else(|| format!("no connect found for {id}"))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Vec<Address>, &mut BTreeSet<String>)) {
        for channel in self.channels.lock().iter_mut().filter(|channel| channel.id == id) {
            if let Kind::Wallet { addresses, accounts, .. } = &mut channel.kind {
                change(addresses, accounts);
                break;
            }
        }
        self.tell();
    }

    /// Opens a channel: its number. A wallet's keys are checked before it is ready.
    fn listen(self: &Arc<Self>, socket: Socket, kind: Kind) -> Value {
        let number = rand::random::<u64>() >> 12;
        let channel = Channel { id: uuid(), number, socket, kind };
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            let gone = channel.socket.gone.clone();
            let socket = channel.socket.clone();
            match gone.run_until_cancelled(hub.open(channel)).await {
                Some(Err(_)) => socket.send(note("xrpc.ch.close", json!([number]))),
                Some(Ok(())) => gone.cancelled().await,
                None => {}
            }
            hub.tell();
        });
        json!(number)
    }

    async fn open(&self, mut channel: Channel) -> Result<(), String> {
        if let Kind::Wallet { .. } = &channel.kind {
            let Lotus(listed) =
                self.ask::<Lotus<Vec<Address>>>(&channel.socket, channel.number, "WalletList", &Value::Null).await?;
            for address in &listed {
                self.check(&channel, *address).await?;
            }
            if let Kind::Wallet { addresses, .. } = &mut channel.kind {
                *addresses = listed;
            }
        }
        let payload = json!(ConnectedCompleted { channel_id: channel.id.clone() }).to_string().into_bytes();
        let event = RequestEvent { id: uuid(), method: INIT_CONNECT.to_owned(), payload };
        let (socket, number) = (channel.socket.clone(), channel.number);
        self.channels.lock().push(channel);
        socket.send(note("xrpc.ch.val", json!([number, event])));
        self.tell();
        Ok(())
    }

    /// Has a key sign the challenge.
    async fn check(&self, channel: &Channel, address: Address) -> Result<(), String> {
        let Kind::Wallet { sign_bytes, .. } = &channel.kind else { return Err("not a wallet".to_owned()) };
        let challenge = Sha256::new().chain_update(self.random).chain_update(sign_bytes).finalize();
        let meta = MsgMeta { r#type: Purpose::VERIFY_ADDRESS, extra: self.random.to_vec() };
        let signature = self.sign(&channel.socket, channel.number, address, &challenge, &meta).await?;
        let good = verify(&address, &signature, &challenge);
        good.then_some(()).ok_or_else(|| format!("verify address {} failed", text_of(&address)))
    }

    async fn sign(
        &self,
        socket: &Socket,
        number: u64,
        signer: Address,
        to_sign: &[u8],
        meta: &MsgMeta,
    ) -> Result<Signature, String> {
        let request = json!({"Signer": Lotus(signer), "ToSign": Lotus(to_sign.to_vec()), "Meta": meta});
        Ok(self.ask::<Lotus<Signature>>(socket, number, "WalletSign", &request).await?.0)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        socket: &Socket,
        number: u64,
        method: &str,
        request: &Value,
    ) -> Result<T, String> {
        let payload = if request.is_null() { Vec::new() } else { request.to_string().into_bytes() };
        let event = RequestEvent { id: uuid(), method: method.to_owned(), payload };
        let (send, receive) = oneshot::channel();
        self.waiting.lock().insert(event.id.clone(), send);
        socket.send(note("xrpc.ch.val", json!([number, event])));
        let response = tokio::select! {
            response = receive => response.map_err(|e| e.to_string())?,
            () = socket.gone.cancelled() => {
                self.waiting.lock().remove(&event.id);
                return Err("channel closed".to_owned());
            }
        };
        if response.error.is_empty() {
            serde_json::from_slice(&response.payload).map_err(|e| e.to_string())
        } else {
            Err(response.error)
        }
    }
}
