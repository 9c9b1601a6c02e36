//! The messager's client: what goes over the wire, to the letter, and what comes of rubbish.

use crate::setup::{Net, TOKEN, key};
use damocles_chain::{
    rpc::{Endpoint, Wire},
    venus::{
        message_uid,
        messager::{MessagerClient, MessagerConfig, MessagerRecord, MessagerState, Replacement, SendSpec},
        testing::{Arrived, FakeServer, Fault},
    },
};
use damocles_core::{
    Address, Context,
    chain::{ChainClient as _, ChainError, ChainErrorKind},
};
use futures::FutureExt as _;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{address::Address as ChainAddress, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{fmt::Debug, sync::Arc, time::Duration};

const CID: &str = "bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4";

fn message() -> Message {
    Message {
        version: 0,
        from: ChainAddress::new_id(100),
        to: ChainAddress::new_id(1000),
        sequence: 0,
        value: TokenAmount::from_atto(5),
        method_num: 5,
        params: RawBytes::new(vec![0x80]),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
    }
}

fn record() -> Value {
    json!({
        "ID": "damocles-1-00", "UnsignedCid": {"/": CID}, "SignedCid": {"/": CID}, "Version": 0, "To": "t01000",
        "From": "t0100", "Nonce": 42, "Value": "5", "GasLimit": 9, "GasFeeCap": "7", "GasPremium": "1", "Method": 5,
        "Params": "gA==", "Signature": {"Type": 2, "Data": "AQID"}, "Height": 100, "Confidence": 10,
        "Receipt": {"ExitCode": 0, "Return": "AQID", "GasUsed": 9}, "TipSetKey": [{"/": CID}],
        "Meta": {"expireEpoch": 10101, "gasOverEstimation": 12.3, "maxFee": "0", "gasOverPremium": 12.3},
        "WalletName": "test", "FromUser": "test", "State": 3, "ErrorMsg": "",
        "CreatedAt": "0001-01-01T00:00:00Z", "UpdatedAt": "0001-01-01T00:00:00Z"
    })
}

fn answer_of(method: &str) -> Value {
    match method {
        "PushMessageWithId" => json!("damocles-1-00"),
        "HasMessageByUid" | "WalletHas" => json!(true),
        "ReplaceMessage" => json!({"/": CID}),
        "RecoverFailedMsg" => json!(["damocles-1-00"]),
        "MarkBadMessage" | "RepublishMessage" => json!({}),
        _ => record(),
    }
}

/// A server that answers each method by a function, and what came.
async fn scripted(
    answer: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
) -> (FakeServer, Arc<Mutex<Vec<Arrived>>>) {
    let came: Arc<Mutex<Vec<Arrived>>> = Arc::default();
    let (seen, answer) = (Arc::clone(&came), Arc::new(answer));
    let server = FakeServer::start(Arc::new(move |arrived: Arrived| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            let request: Value = serde_json::from_str(&arrived.text).unwrap();
            seen.lock().push(arrived);
            answer(request["method"].as_str().unwrap().strip_prefix("Message.").unwrap_or_default(), &request["id"])
        }
        .boxed()
    }));
    (server.await.unwrap(), came)
}

fn client(url: &str, transport: Wire) -> MessagerClient {
    let endpoint: Endpoint = url.parse().unwrap();
    let config = MessagerConfig { transport, ..MessagerConfig::new(endpoint.with_token(TOKEN)) };
    MessagerClient::new(config).unwrap()
}

/// Calls every method: its name and what came of it, as text.
async fn all(client: &MessagerClient) -> Vec<(&'static str, Result<String, ChainError>)> {
    fn text<T: Debug>(done: Result<T, ChainError>) -> Result<String, ChainError> {
        done.map(|value| format!("{value:?}"))
    }
    fn read(done: Result<MessagerRecord, ChainError>) -> Result<String, ChainError> {
        done.map(|record| serde_json::to_string(&record).unwrap())
    }
    let (id, from) = ("damocles-1-00", "t0100".parse::<Address>().unwrap());
    let cid = CID.parse().unwrap();
    let spec = SendSpec {
        expire_epoch: 10_101,
        gas_over_estimation: 1.25,
        max_fee: TokenAmount::from_atto(10),
        gas_over_premium: 1.5,
    };
    let replacement = Replacement::priced(id, TokenAmount::from_atto(3), TokenAmount::from_atto(4));
    let cx = Context::detached();
    vec![
        ("PushMessageWithId", text(client.push(id, &message(), &spec).await)),
        ("HasMessageByUid", text(client.has(id).await)),
        ("GetMessageByUid", read(client.get(id).await)),
        ("GetMessageBySignedCid", read(client.get_by_signed_cid(&cid).await)),
        ("GetMessageByUnsignedCid", read(client.get_by_unsigned_cid(&cid).await)),
        ("GetMessageByFromAndNonce", read(client.get_by_nonce(&from, 42).await)),
        ("WaitMessage", read(client.wait(id, 5, Duration::from_secs(5), &cx).await)),
        ("ReplaceMessage", text(client.replace(&replacement).await)),
        ("RepublishMessage", text(client.republish(id).await)),
        ("MarkBadMessage", text(client.mark_bad(id).await)),
        ("RecoverFailedMsg", text(client.recover_failed(&from).await)),
        ("WalletHas", text(client.wallet_has(&from).await)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_are_the_messagers_over_http_and_websocket() {
    let mut wires = Vec::new();
    for transport in [Wire::Http, Wire::WebSocket] {
        let (server, came) =
            scripted(|method, id| Some(json!({"jsonrpc": "2.0", "id": id, "result": answer_of(method)}).to_string()))
                .await;
        let mut wire = Vec::new();
        for (method, done) in all(&client(&server.url(), transport)).await {
            wire.push(format!("# {method}\n{}\n", done.unwrap()));
        }
        for arrived in came.lock().iter() {
            assert_eq!(arrived.header("authorization"), "Bearer sesame");
            assert_eq!(arrived.header("x-venus-api-namespace"), "messager.IMessager");
            assert_eq!(arrived.path, "/rpc/v0");
            let mut request: Value = serde_json::from_str(&arrived.text).unwrap();
            request["id"] = json!(1);
            wire.push(request.to_string());
        }
        wires.push(wire.join("\n"));
    }
    assert_eq!(wires[0], wires[1], "the same over both");
    insta::assert_snapshot!(wires[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_read_and_written_as_it_is() {
    let read: MessagerRecord = serde_json::from_value(record()).unwrap();
    let mut written = serde_json::to_value(&read).unwrap();
    // Network prefixes and fields of other versions are not kept.
    let mut expected = record();
    expected.as_object_mut().unwrap().remove("FromUser");
    for value in [&mut written, &mut expected] {
        value["To"] = json!(value["To"].as_str().unwrap().get(1..).unwrap());
        value["From"] = json!(value["From"].as_str().unwrap().get(1..).unwrap());
        value["Receipt"].as_object_mut().unwrap().remove("EventsRoot");
    }
    assert_eq!(written, expected);
    for (number, state) in
        [(0, MessagerState::Unknown), (5, MessagerState::NonceConflict), (6, MessagerState::Other(6))]
    {
        let mut other = record();
        other["State"] = json!(number);
        let read: MessagerRecord = serde_json::from_value(other).unwrap();
        assert_eq!(read.status.state, state);
        assert_eq!(i64::from(state), number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_a_typed_error_with_the_endpoint_and_a_hint() {
    let huge = "9".repeat(400);
    let mut answers: Vec<String> = [
        "<html>502 Bad Gateway</html>",
        "",
        "null",
        "[]",
        "{}",
        r#"{"jsonrpc":"2.0","id":1,"result":{"ID":7"#,
        r#"{"jsonrpc":"2.0","id":1,"result":[{"a":1}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":-7.5e300}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":"boom"}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"record not found"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"method not found"}}"#,
    ]
    .map(str::to_owned)
    .into();
    answers.push(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{huge}}}"#));
    answers.push(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"ID":"damocles-1-00","State":{huge}}}}}"#));
    for (field, bad) in [
        ("State", json!("x")),
        ("State", json!(null)),
        ("Value", json!("9".repeat(5_000))),
        ("GasLimit", json!(-1)),
        ("Nonce", json!(-1)),
        ("From", json!("<empty>")),
        ("SignedCid", json!({"/": "x"})),
        ("Signature", json!({"Type": 9, "Data": "AQID"})),
        ("ID", json!(null)),
    ] {
        let mut record = record();
        record[field] = bad;
        answers.push(json!({"jsonrpc": "2.0", "id": 1, "result": record}).to_string());
    }
    for answer in answers {
        let said = answer.clone();
        let (server, _came) = scripted(move |_, _| Some(said.clone())).await;
        for (method, done) in all(&client(&server.url(), Wire::Http)).await {
            // What says nothing is all that these answer.
            let Err(e) = done else {
                let lenient = ["MarkBadMessage", "RepublishMessage", "RecoverFailedMsg"].contains(&method);
                assert!(lenient, "{method} took {answer}");
                continue;
            };
            assert!(e.chain().contains("127.0.0.1"), "{method}, {answer}: {}", e.chain());
            assert!(e.hint().is_some_and(|hint| !hint.is_empty()), "{method}, {answer}: {}", e.chain());
            assert!(!e.chain().contains(TOKEN));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_for_another_message_are_refused() {
    let (server, _came) = scripted(|method, id| {
        let mut answer = answer_of(method);
        match &mut answer {
            Value::String(text) => text.push('1'),
            Value::Object(object) if object.contains_key("ID") => drop(object.insert("ID".into(), json!("other"))),
            _ => {}
        }
        Some(json!({"jsonrpc": "2.0", "id": id, "result": answer}).to_string())
    })
    .await;
    for (method, done) in all(&client(&server.url(), Wire::Http)).await {
        if ["PushMessageWithId", "GetMessageByUid", "WaitMessage"].contains(&method) {
            assert_eq!(done.unwrap_err().kind(), ChainErrorKind::Malformed, "{method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_end_with_the_message_the_time_or_the_caller() {
    let net = Net::new().await;
    for transport in [Wire::Http, Wire::WebSocket] {
        let client = client(&net.messager.url(), transport);
        let uid = format!("wait-{transport:?}");
        let message = Message {
            from: damocles_chain::lotus_json::from_core(&net.worker).unwrap(),
            method_num: 0,
            params: RawBytes::default(),
            ..message()
        };
        net.messager.idle(true);
        client.push(&uid, &message, &SendSpec::default()).await.unwrap();
        let cx = Context::detached();
        let late = client.wait(&uid, 1, Duration::from_millis(50), &cx).await.unwrap_err();
        assert_eq!(late.kind(), ChainErrorKind::Unavailable, "{}", late.chain());
        let stopping = Context::detached();
        let heads = net.idle_client().await;
        let waiting = async {
            tokio::join!(
                client.wait(&uid, 1, Duration::from_secs(60), &stopping),
                client.wait_by_query(&uid, 1, heads.head_changes(), &stopping)
            )
        };
        let (waited, _) = tokio::join!(waiting, async { stopping.cancel.cancel() });
        for ended in [waited.0, waited.1] {
            assert_eq!(ended.unwrap_err().kind(), ChainErrorKind::Cancelled);
        }
        net.messager.idle(false);
        // One question goes wrong, which is no reason to stop asking.
        net.messager.strike("GetMessageByUid", &Fault::Refuse("database is locked".into()), 1);
        let both = async {
            tokio::join!(
                client.wait(&uid, 1, Duration::from_secs(60), &cx),
                client.wait_by_query(&uid, 1, heads.head_changes(), &cx)
            )
        };
        let (waited, asked) = net.mine_until(both).await;
        for record in [waited.unwrap(), asked.unwrap()] {
            assert_eq!(record.status.state, MessagerState::OnChain);
            assert!(record.status.confidence > 1);
        }
        let unknown = client.wait_by_query("nothing", 1, heads.head_changes(), &cx).await.unwrap_err();
        assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_lost_is_made_again() {
    let net = Net::new().await;
    let client = client(&net.messager.url(), Wire::WebSocket);
    let uid = message_uid(&key("nothing"));
    for _ in 0..3 {
        assert!(!client.has(&uid).await.unwrap());
        net.messager.cut();
        // The call that meets the end of the connection fails, and the next one has a new one.
        net.until(async || client.has(&uid).await.is_ok()).await;
    }
    let answers = futures::future::join_all((0..50).map(|_| client.has(&uid))).await;
    assert!(answers.into_iter().all(|answer| !answer.unwrap()));
}
