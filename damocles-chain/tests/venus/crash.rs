//! The process ends at any point, and services answer what they like: one key is one message.

use crate::setup::{Net, key, run};
use damocles_chain::venus::{VenusState, testing::Fault};
use damocles_core::chain::{ChainClient as _, MessageId, MessageState};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_by_a_process_that_ended_is_sent_by_the_next() {
    let net = Net::new().await;
    let id = net.idle_client().await.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.devnet.mine(3).unwrap();
    assert!(net.messager.called("PushMessageWithId").is_empty(), "nothing leaves without the loop");
    let running = net.client().await;
    assert!(net.landed(&running.client, &id, 1).await.is_success());
    assert_eq!(net.messager.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_between_push_and_answer_pushes_no_second_message() {
    let net = Net::new().await;
    let id = {
        let running = net.client().await;
        // It is taken, and the answer never comes.
        net.messager.strike("PushMessageWithId", &Fault::DropAnswer, 1);
        net.messager.strike("HasMessageByUid", &Fault::DropRequest, 1_000);
        net.messager.strike("GetMessageByUid", &Fault::DropRequest, 1_000);
        let id = running.client.submit(&key("pay"), &net.pay(1)).await.unwrap();
        net.mine_until(net.until(async || net.messager.records().len() == 1)).await;
        id
    };
    net.messager.forgive();
    let client = net.idle_client().await;
    assert_eq!(client.entries().await.unwrap()[0].state, VenusState::Sent, "recorded before it left");
    let running = run(client);
    assert!(net.landed(&running.client, &id, 1).await.is_success());
    assert_eq!((net.messager.records().len(), net.on_chain(&net.owner)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_while_the_push_is_on_its_way_pushes_no_second_message() {
    let net = Net::new().await;
    let id = {
        let running = net.client().await;
        net.messager.strike("PushMessageWithId", &Fault::Delay(Duration::from_millis(300)), 1);
        let id = running.client.submit(&key("pay"), &net.pay(1)).await.unwrap();
        net.mine_until(net.until(async || net.messager.called("PushMessageWithId").len() == 1)).await;
        id
    };
    let running = net.client().await;
    assert!(net.landed(&running.client, &id, 1).await.is_success());
    assert_eq!((net.messager.records().len(), net.on_chain(&net.owner)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_lost_its_database_finds_its_message_again() {
    let net = Net::new().await;
    let receipt = {
        let running = net.client().await;
        let id = running.client.submit(&key("pay"), &net.pay(1)).await.unwrap();
        net.landed(&running.client, &id, 1).await
    };
    sqlx::query("DELETE FROM venus_messages").execute(&net.database().await).await.unwrap();
    let running = net.client().await;
    let id = running.client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    assert_eq!(net.landed(&running.client, &id, 1).await, receipt);
    // The same name for something else is not this call's message.
    sqlx::query("DELETE FROM venus_messages").execute(&net.database().await).await.unwrap();
    let other = damocles_core::chain::Call::Send(damocles_core::chain::Transfer {
        to: net.worker.clone(),
        from: net.worker.clone(),
        amount: damocles_core::TokenAmount::from_fil(1),
    });
    let id = running.client.submit(&key("pay"), &other).await.unwrap();
    let trouble = |state: &MessageState| matches!(state, MessageState::Pending { trouble: Some(t) } if t.contains("read message"));
    net.state(&running.client, &id, trouble).await;
    assert_eq!(net.messager.records().len(), 1);
}

/// Every way in which a call can go wrong, for calls of these methods.
fn random_fault(rng: &mut ChaCha8Rng) -> (&'static str, Fault) {
    let method = ["PushMessageWithId", "HasMessageByUid", "GetMessageByUid"][rng.gen_range(0..3)];
    let fault = match rng.gen_range(0..7) {
        0 => Fault::DropRequest,
        1 => Fault::DropAnswer,
        2 => Fault::Delay(Duration::from_millis(rng.gen_range(0..30))),
        3 => Fault::Say("<html>502 Bad Gateway</html>".into()),
        4 => Fault::Refuse("database is locked".into()),
        5 => Fault::Lie(json!(null)),
        _ => Fault::Say(r#"{"jsonrpc":"2.0","id":1,"result":{"ID":7"#.into()),
    };
    (method, fault)
}

#[tokio::test(flavor = "multi_thread")]
async fn through_any_faults_and_restarts_every_key_lands_once() {
    const KEYS: i64 = 24;
    let seed = 0x5EED_0001;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let net = Net::new().await;
    let mut submitted = 0;
    while submitted < KEYS {
        let running = net.client().await;
        for _ in 0..rng.gen_range(1..4) {
            let name = format!("pay/{submitted}");
            running.client.submit(&key(&name), &net.pay(1)).await.unwrap();
            submitted += 1;
        }
        for _ in 0..rng.gen_range(0..6) {
            let (method, fault) = random_fault(&mut rng);
            net.messager.strike(method, &fault, 1);
        }
        for _ in 0..rng.gen_range(1..4) {
            tokio::time::sleep(Duration::from_millis(rng.gen_range(0..40))).await;
            net.devnet.mine(1).unwrap();
        }
        if rng.gen_bool(0.3) {
            net.messager.cut();
        }
    }
    let running = net.client().await;
    for n in 0..submitted {
        let receipt = net.landed(&running.client, &MessageId::new(format!("pay/{n}")), 1).await;
        assert!(receipt.is_success(), "seed {seed}: {receipt:?}");
    }
    let all = usize::try_from(submitted).unwrap();
    assert_eq!((net.messager.records().len(), net.on_chain(&net.owner)), (all, all), "seed {seed}");
}
