//! Tables of earlier versions are taken over with everything in them.

use super::*;
use crate::outbox::store::old_tables;

#[tokio::test]
async fn tables_of_earlier_versions_are_taken_over() {
    for version in [1, 2] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let pool = bench.pool().await;
        old_tables(&pool, version).await;
        // What that version wrote: one that waits, one that is on its way, one that is final and one that was dropped.
        let signed = {
            let (other, scratch) = (bench.like(), FakeNode::new());
            let outbox = other.outbox(&scratch).await;
            outbox.submit(&key(2), &call(2)).await.unwrap();
            outbox.pass(&scratch.head()).await;
            let chain = scratch.chain.lock();
            chain.pool[&0].clone()
        };
        let cid = crate::lotus_json::signed_message_cid(&signed);
        let sender = crate::lotus_json::text_of(&bench.sender);
        let receipt = r#"{"message":"bafy","exit_code":0,"returned":"","error":null,"epoch":5,"created":null}"#;
        let json = |n: u64| serde_json::to_string(&call(n)).unwrap();
        let insert = "INSERT INTO chain_messages (submit_key, seq, call, state, sender, nonce, cid, signed, receipt)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let text = |text: &str| Some(text.to_owned());
        type Rest = (Option<String>, Option<i64>, Option<String>, Option<String>, Option<String>);
        let rows: [(u64, &str, Rest); 4] = [
            (1, "settled", (text("t1other"), Some(7), text(&cid.to_string()), None, text(receipt))),
            (2, "signed", (text(&sender), Some(0), text(&cid.to_string()), serde_json::to_string(&signed).ok(), None)),
            (3, "recorded", (None, None, None, None, None)),
            (4, "dropped", (None, None, None, None, None)),
        ];
        for (n, state, (sender, nonce, cid, signed, receipt)) in rows {
            sqlx::query(insert)
                .bind(key(n).0)
                .bind(i64::try_from(n).unwrap())
                .bind(json(n))
                .bind(state)
                .bind(sender)
                .bind(nonce)
                .bind(cid)
                .bind(signed)
                .bind(receipt)
                .execute(&pool)
                .await
                .unwrap();
        }
        if version == 2 {
            sqlx::query("UPDATE chain_messages SET landed = 990 WHERE state = 'signed'").execute(&pool).await.unwrap();
        }

        let outbox = bench.outbox(&node).await;
        let entries = outbox.entries().await.unwrap();
        let states: Vec<_> = entries.iter().map(|e| e.state).collect();
        assert_eq!(
            states,
            [OutboxState::Settled, OutboxState::Signed, OutboxState::Recorded, OutboxState::Dropped],
            "version {version}"
        );
        assert_eq!(entries[0].exit_code, Some(0));
        assert_eq!((entries[1].nonce, entries[1].cid.clone()), (Some(0), Some(cid.to_string())));
        assert_eq!((entries[1].versions.len(), entries[1].versions[0].epoch), (1, None));
        assert_eq!(entries[1].landed, (version == 2).then_some(Epoch(990)));
        outbox.submit(&key(5), &call(5)).await.unwrap();
        settle_all(&node, &outbox, &[key(2), key(3), key(5)]).await;
        assert_eq!(node.landed(), [0, 1, 2], "version {version}");
        let first = node.chain.lock().landed[0].1.clone();
        assert_eq!(first.message.sequence, 0);
        assert!(outbox.entries().await.unwrap()[1].versions.iter().any(|v| v.cid == cid.to_string()));
        // Opened again, nothing is migrated twice.
        assert_eq!(bench.outbox(&node).await.entries().await.unwrap().len(), 5);
    }
}
