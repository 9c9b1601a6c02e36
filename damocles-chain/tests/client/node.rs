//! A node that tells a chain of its own choice.

use crate::{
    server::{Reply, Server},
    setup::{cid, tipset},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a [`FakeNode`] serves.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) network: &'static str,
    pub(crate) genesis: u8,
    pub(crate) head: i64,
    /// The fork that it is on, and the last height that it has in common with the trunk.
    pub(crate) fork: (u8, i64),
    pub(crate) weight: i64,
    /// It answers nothing that can be understood.
    pub(crate) down: bool,
    /// Lower tipsets are not known to it.
    pub(crate) oldest: i64,
    /// What it answers to these, whatever it would say otherwise.
    pub(crate) says: Vec<(&'static str, Value)>,
    /// What it refuses, and with which code and words.
    pub(crate) refuses: Vec<(&'static str, i64, &'static str)>,
}

impl State {
    fn tipset(&self, height: i64) -> Value {
        let fork = |h: i64| if h > self.fork.1 { self.fork.0 } else { 0 };
        let parent = (height - 1).max(0);
        let mut tipset = tipset(height, fork(height), (parent, fork(parent)));
        if height == 0 {
            tipset["Cids"] = json!([{"/": cid(0, self.genesis)}]);
            tipset["Blocks"][0]["Parents"] = json!([]);
        }
        tipset
    }

    fn height_of(&self, key: &Value) -> Option<i64> {
        let Some(text) = key[0]["/"].as_str() else { return Some(self.head) };
        (self.oldest..=self.head).find(|height| self.tipset(*height)["Cids"][0]["/"] == text)
    }

    fn answer(&self, method: &str, params: &Value) -> Reply {
        if self.down {
            return Reply::text(502, "<html>down</html>");
        }
        if let Some((_, code, words)) = self.refuses.iter().find(|(name, ..)| *name == method) {
            return Reply::error(*code, words);
        }
        if let Some((_, value)) = self.says.iter().find(|(name, _)| *name == method) {
            return Reply::result(value.clone());
        }
        let unknown = || Reply::error(1, "failed to load tipset: ipld: could not find bafy2bza");
        match method {
            "StateNetworkName" => Reply::result(json!(self.network)),
            "ChainGetGenesis" => Reply::result(self.tipset(0)),
            "ChainHead" => Reply::result(self.tipset(self.head)),
            "ChainGetTipSet" => {
                self.height_of(&params[0]).map_or_else(unknown, |height| Reply::result(self.tipset(height)))
            }
            "ChainGetTipSetByHeight" => match self.height_of(&params[1]) {
                Some(_) if params[0].as_i64().unwrap() >= self.oldest => {
                    Reply::result(self.tipset(params[0].as_i64().unwrap()))
                }
                _ => unknown(),
            },
            "ChainTipSetWeight" => Reply::result(json!(self.weight.to_string())),
            "MpoolPush" => Reply::result(json!({"/": cid(1, 9)})),
            "WalletBalance" => Reply::result(json!(self.head.to_string())),
            "StateNetworkVersion" => self.height_of(&params[0]).map_or_else(unknown, |_| Reply::result(json!(28))),
            other => Reply::error(-32601, other),
        }
    }
}

/// A server of a chain that changes on command.
pub(crate) struct FakeNode {
    pub(crate) server: Server,
    pub(crate) state: Arc<Mutex<State>>,
}

impl FakeNode {
    pub(crate) async fn at(head: i64) -> Self {
        let state = State {
            network: "devnet-test",
            genesis: 0,
            head,
            fork: (0, 0),
            weight: head,
            down: false,
            oldest: 0,
            says: Vec::new(),
            refuses: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let told = Arc::clone(&state);
        let server = Server::scripted(move |method, params| told.lock().answer(method, params)).await;
        Self { server, state }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &str) -> usize {
        self.server.called.lock().iter().filter(|m| *m == method).count()
    }
}
