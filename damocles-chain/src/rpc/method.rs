//! What is known of the methods: how long each may take, where it goes, and which answers never change.

use cid::Cid;
use damocles_core::chain::TipsetKey;
use serde_json::Value;

/// How much work an answer is for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// What a node knows by heart.
    Quick,
    /// A look into the chain or its state.
    Read,
    /// What makes a node run messages, walk the chain or go through whole tables.
    Slow,
    /// A message on its way out.
    Push,
    /// An answer that waits for the chain.
    Wait,
}

/// Which of several endpoints a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Any that can be relied on: the next one is asked where one does not answer.
    Any,
    /// The preferred one and no other: asking twice could do twice.
    One,
    /// All that can be relied on: the same signed bytes twice are one message.
    All,
}

/// The name without its namespace.
fn short(method: &str) -> &str {
    method.strip_prefix("Filecoin.").unwrap_or(method)
}

pub(super) fn class_of(method: &str) -> Class {
    match short(method) {
        "Version"
        | "ChainHead"
        | "ChainGetGenesis"
        | "StateNetworkName"
        | "StateGetNetworkParams"
        | "WalletHas"
        | "WalletList"
        | "WalletDefaultAddress"
        | "SyncState" => Class::Quick,
        "StateSearchMsg"
        | "StateReplay"
        | "StateCall"
        | "GasEstimateMessageGas"
        | "GasEstimateGasLimit"
        | "GasEstimateGasPremium"
        | "MinerGetBaseInfo"
        | "MpoolSelect"
        | "StateListMiners"
        | "StateMinerActiveSectors"
        | "StateMinerAllocated"
        | "StateMinerSectorCount"
        | "StateMinerSectors" => Class::Slow,
        "MpoolPush"
        | "MpoolBatchPush"
        | "MpoolPushMessage"
        | "MpoolPushUntrusted"
        | "MpoolBatchPushUntrusted"
        | "MinerCreateBlock"
        | "SyncSubmitBlock"
        | "WalletSign"
        | "WalletSignMessage" => Class::Push,
        "StateWaitMsg" => Class::Wait,
        _ => Class::Read,
    }
}

pub(super) fn route_of(method: &str) -> Route {
    match short(method) {
        "MpoolPush" | "MpoolBatchPush" | "MpoolPushUntrusted" | "MpoolBatchPushUntrusted" => Route::All,
        // These assign a nonce, or change what the node holds.
        "MpoolPushMessage"
        | "MpoolBatchPushMessage"
        | "MpoolClear"
        | "WalletNew"
        | "WalletImport"
        | "WalletDelete"
        | "WalletSetDefault"
        | "MinerCreateBlock"
        | "SyncSubmitBlock"
        | "ChainSetHead"
        | "AuthNew" => Route::One,
        // Another namespace is a node's own: what it does is not known here.
        _ if !method.starts_with("Filecoin.") => Route::One,
        _ => Route::Any,
    }
}

/// Methods whose answer is a function of their parameters alone, if the tipset, which comes last, is named.
const OF_A_TIPSET: &[&str] = &[
    "ChainGetTipSet",
    "ChainGetTipSetAfterHeight",
    "ChainGetTipSetByHeight",
    "StateAccountKey",
    "StateGetActor",
    "StateGetRandomnessFromBeacon",
    "StateGetRandomnessFromTickets",
    "StateLookupID",
    "StateMinerAvailableBalance",
    "StateMinerDeadlines",
    "StateMinerFaults",
    "StateMinerInfo",
    "StateMinerPartitions",
    "StateMinerPower",
    "StateMinerProvingDeadline",
    "StateMinerRecoveries",
    "StateMinerSectorAllocated",
    "StateMinerSectorCount",
    "StateMinerSectors",
    "StateNetworkVersion",
    "StateSectorExpiration",
    "StateSectorGetInfo",
    "StateSectorPartition",
    "StateSectorPreCommitInfo",
];

/// The tipset to which an answer is bound, so that it never changes; none for every other request.
pub(super) fn bound_to(method: &str, params: &Value) -> Option<TipsetKey> {
    let name = method.strip_prefix("Filecoin.")?;
    OF_A_TIPSET.binary_search(&name).ok()?;
    let key = key_of(params.as_array()?.last()?)?;
    (!key.0.is_empty()).then_some(key)
}

/// Reads a tipset key in Lotus' form.
pub(super) fn key_of(value: &Value) -> Option<TipsetKey> {
    let cid = |link: &Value| link.get("/")?.as_str()?.parse::<Cid>().ok();
    value.as_array()?.iter().map(cid).collect::<Option<Vec<_>>>().map(TipsetKey)
}

/// The tipset in an answer of a method that answers one: its key and epoch.
pub(super) fn tipset_in(method: &str, answer: &Value) -> Option<(TipsetKey, i64)> {
    let tells = matches!(
        short(method),
        "ChainHead" | "ChainGetTipSet" | "ChainGetTipSetByHeight" | "ChainGetTipSetAfterHeight" | "ChainGetGenesis"
    );
    let key = tells.then(|| answer.get("Cids").and_then(key_of)).flatten()?;
    Some((key, answer.get("Height")?.as_i64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_can_be_searched() {
        assert!(OF_A_TIPSET.is_sorted());
    }

    #[test]
    fn only_what_names_its_tipset_is_bound() {
        let cid = "bafy2bzaceaa43et73tgxsoh2xizd4mxhbrcfig4kqp25zfa5scdgkzppllyuu";
        let key = json!([{"/": cid}]);
        for (method, params, bound) in [
            ("Filecoin.StateMinerInfo", json!(["t01000", key]), true),
            ("Filecoin.StateMinerInfo", json!(["t01000", []]), false),
            ("Filecoin.StateMinerInfo", json!(["t01000", null]), false),
            ("Filecoin.StateMinerInfo", json!(["t01000"]), false),
            ("Filecoin.StateMinerInfo", json!(["t01000", [{"/": "x"}]]), false),
            ("Filecoin.ChainGetTipSet", json!([key]), true),
            ("Filecoin.ChainHead", json!([]), false),
            ("Filecoin.WalletBalance", json!(["t01000"]), false),
            ("Filecoin.StateSearchMsg", json!([key, {"/": cid}, -1, true]), false),
            ("Filecoin.MpoolPending", json!([key]), false),
            ("Devnet.StateMinerInfo", json!(["t01000", key]), false),
        ] {
            assert_eq!(bound_to(method, &params).is_some(), bound, "{method} {params}");
        }
    }

    #[test]
    fn what_does_something_is_not_asked_for_twice() {
        assert_eq!(route_of("Filecoin.MpoolPush"), Route::All);
        assert_eq!(route_of("Filecoin.MpoolPushMessage"), Route::One);
        assert_eq!(route_of("Devnet.Mine"), Route::One);
        assert_eq!(route_of("Filecoin.StateMinerInfo"), Route::Any);
    }
}
