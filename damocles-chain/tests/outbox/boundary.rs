//! What a node's pool demands of a replacement, to the attoFIL.

use crate::home::Home;
use damocles_chain::{
    Fees, OutboxState, Replacement,
    devnet::SignedMessage,
    lotus_json::{self, to_core},
    signer::{SignRequest, Signer as _},
};
use damocles_core::{
    CancellationToken, TokenAmount as Amount,
    chain::{Call, ChainClient as _, SubmitKey, Transfer},
};
use fvm_shared::{econ::TokenAmount, message::Message};
use serde_json::json;
use std::sync::Arc;

impl Home {
    /// The one message in the devnet's pool.
    fn pooled(&self) -> Message {
        let pool = self.devnet.call("Filecoin.MpoolPending", json!([])).unwrap();
        let mut all: Vec<lotus_json::SignedMessage> = serde_json::from_value(pool).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0).message
    }

    async fn sign(&self, message: Message) -> SignedMessage {
        let request = SignRequest::message(message.clone());
        let signature = self.keys.sign(&to_core(&message.from), &request).await.unwrap();
        SignedMessage { message, signature }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_at_the_boundary_is_taken_and_one_attofil_below_it_is_not() {
    let home = Home::new(1, 100, Fees::default(), Arc::new(|_| {})).await;
    let client = home.client(&home.database().await).await.unwrap();
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let running = Arc::clone(&client);
    tokio::spawn(async move { running.run(cancel).await });
    let from = home.senders[0].clone();
    let call = Call::Send(Transfer { from: from.clone(), to: from, amount: Amount::from_atto(7) });
    let id = client.submit(&SubmitKey("a".into()), &call).await.unwrap();
    while home.devnet.call("Filecoin.MpoolPending", json!([])).unwrap().as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        let first = home.pooled();
        let old = i128::try_from(first.gas_premium.atto()).unwrap();
        let least = old * 110 / 100 + 1;
        let dearer = |premium: i128| Message {
            gas_premium: TokenAmount::from_atto(premium),
            gas_fee_cap: TokenAmount::from_atto(premium * 2),
            ..first.clone()
        };
        let refused = home.devnet.push(home.sign(dearer(least - 1)).await).unwrap_err().to_string();
        assert!(refused.contains("too low GasPremium"), "{refused}");
        let premium = |premium| Replacement { premium: Some(Amount::from_atto(premium)), ..Replacement::default() };
        assert!(client.replace_message(&id, premium(least - 1)).await.is_err(), "it does not even leave");
        assert_eq!(home.pooled(), first);
        client.replace_message(&id, premium(least)).await.unwrap();
        while home.pooled() == first {
            tokio::task::yield_now().await;
        }
        let second = home.pooled();
        assert_eq!(second.gas_premium, TokenAmount::from_atto(least));
        let unpriced = |m: &Message| (m.to, m.from, m.sequence, m.value.clone(), m.method_num, m.params.clone());
        assert_eq!(unpriced(&second), unpriced(&first));
    }
    let entry = client.outbox_entry(&id).await.unwrap();
    assert_eq!((entry.versions.len(), entry.state, entry.error), (6, OutboxState::Signed, None));
}
