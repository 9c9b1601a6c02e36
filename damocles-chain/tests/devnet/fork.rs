//! Reorganisations: what is gone, what comes back, and what those see who look on.

use crate::harness::{Key, Net, config};
use cid::Cid;
use damocles_chain::{
    devnet::{Devnet, DevnetRpc, ForkPlan, MessageFate},
    lotus_json::{HeadChange, HeadChangeKind, TipSet},
};
use damocles_core::{chain::TipsetRef, testing::FakeVerifier};
use futures::{SinkExt, StreamExt, channel::mpsc};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use serde_json::{Value, from_value, json};
use std::{collections::HashSet, sync::Arc};

fn transfer(net: &Net, nonce: u64) -> Cid {
    let mut message = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_whole(1));
    message.sequence = nonce;
    net.push(&net.owner, message).unwrap()
}

fn key(cid: &Cid) -> Value {
    json!({"/": cid.to_string()})
}

fn plan(depth: u64, fate: MessageFate) -> ForkPlan {
    ForkPlan { depth, fate, ..ForkPlan::default() }
}

fn balance(net: &Net, who: &Address) -> i128 {
    net.call("WalletBalance", json!([who.to_string()])).as_str().unwrap().parse().unwrap()
}

/// What all actors have together: no fork, fee or fault may change it.
fn sum(net: &Net) -> i128 {
    net.devnet.mine(1).unwrap();
    (0..100)
        .chain(1000..1010)
        .filter_map(|id| {
            let actor = net.try_call("StateGetActor", json!([format!("t0{id}"), []])).ok()?;
            Some(actor["Balance"].as_str().unwrap().parse::<i128>().unwrap())
        })
        .sum()
}

#[test]
fn a_deep_fork_lands_messages_elsewhere_or_again() {
    let net = Net::with_miner();
    let whole = sum(&net);
    let before = net.devnet.head();
    let mut cids = Vec::new();
    for nonce in 0..20 {
        cids.push(transfer(&net, nonce + 1));
        net.devnet.mine(1).unwrap();
    }
    let receiver = balance(&net, &net.worker.address());
    let at: Vec<i64> = cids.iter().map(|c| net.devnet.landed(c).unwrap().epoch).collect();
    assert!(at.iter().zip(1..).all(|(at, ahead)| *at == before.epoch.0 + ahead));

    // Again: at the same heights, in other blocks.
    let old = net.devnet.head();
    let forked = net.devnet.fork(&plan(20, MessageFate::Again)).unwrap();
    assert_eq!((forked.base, forked.reverted.len(), forked.applied.len()), (before.clone(), 20, 20));
    assert_eq!((forked.landed.len(), forked.returned.len(), forked.lost.len()), (20, 0, 0));
    assert_eq!(cids.iter().map(|c| net.devnet.landed(c).unwrap().epoch).collect::<Vec<_>>(), at);
    assert_ne!(net.devnet.head(), old);
    assert_eq!(balance(&net, &net.worker.address()), receiver);

    // From the pool: all in the first block.
    net.devnet.fork(&plan(20, MessageFate::Pool)).unwrap();
    assert!(cids.iter().all(|c| net.devnet.landed(c).unwrap().epoch == before.epoch.0 + 1));
    assert_eq!(balance(&net, &net.worker.address()), receiver);

    // Late: three epochs after the old head. Until then they wait, and so do their senders.
    let top = net.epoch();
    let forked = net.devnet.fork(&plan(20, MessageFate::Delay(3))).unwrap();
    assert_eq!((forked.landed.len(), forked.returned.len()), (0, 20));
    assert_eq!(net.call("MpoolPending", json!([[]])).as_array().unwrap().len(), 20);
    assert!(net.call("StateSearchMsg", json!([[], key(&cids[0]), -1, true])).is_null());
    assert_eq!(balance(&net, &net.worker.address()), receiver - 20_000_000_000_000_000_000);
    net.devnet.mine(2).unwrap();
    assert!(cids.iter().all(|c| net.devnet.landed(c).is_none()));
    net.devnet.mine(1).unwrap();
    assert!(cids.iter().all(|c| net.devnet.landed(c).unwrap().epoch == top + 3));
    assert_eq!(balance(&net, &net.worker.address()), receiver);

    // Lost: whoever sent them pushes them again.
    let forked = net.devnet.fork(&plan(1, MessageFate::Drop)).unwrap();
    assert_eq!(forked.lost.len(), 20);
    assert_eq!(net.nonce(&net.owner.address()), 1);
    assert_eq!(transfer(&net, 1), cids[0], "the same message is taken again");
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&cids[0]).is_some() && net.devnet.landed(&cids[1]).is_none());
    assert_eq!(sum(&net), whole, "nothing came and nothing went");
}

#[test]
fn each_message_can_have_a_fate_of_its_own() {
    let net = Net::bare();
    let cids: Vec<Cid> = (0..3).map(|n| transfer(&net, n)).collect();
    net.devnet.mine(1).unwrap();
    // The first is lost, so that the others wait behind the gap.
    let params =
        json!([{"Depth": 1, "Extend": 2, "Messages": "Pool", "Only": [{"Cid": key(&cids[0]), "Fate": "Drop"}]}]);
    let forked = net.devnet.call("Devnet.Fork", params).unwrap();
    assert_eq!(forked["Lost"], json!([key(&cids[0])]));
    assert_eq!(forked["Returned"].as_array().unwrap().len(), 2);
    assert_eq!(forked["Applied"].as_array().unwrap().len(), 3);
    assert_eq!(net.nonce(&net.owner.address()), 0);
    transfer(&net, 0);
    net.devnet.mine(1).unwrap();
    assert!(cids.iter().all(|c| net.devnet.landed(c).is_some()));
}

#[test]
fn state_and_randomness_follow_the_new_branch() {
    let net = Net::with_miner();
    net.devnet.mine(5).unwrap();
    let old = net.devnet.head();
    let sector = net.sector(0);
    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0);
    net.devnet.mine(3).unwrap();
    let old_head = net.devnet.head();
    let info = |at: &Value| net.call("StateSectorPreCommitInfo", json!([net.miner.to_string(), 0, at]));
    assert!(!info(&json!([])).is_null());
    let epoch = old.epoch.0 + 2;
    let draw = |from: &str, at: &Value| net.call(&format!("StateGetRandomnessFrom{from}"), json!([5, epoch, null, at]));
    let (ticket, beacon) = (draw("Tickets", &json!([])), draw("Beacon", &json!([])));

    net.devnet.fork(&plan(4, MessageFate::Drop)).unwrap();
    assert!(info(&json!([])).is_null(), "the pre-commit never happened");
    assert_eq!(net.call("StateMinerSectorAllocated", json!([net.miner.to_string(), 0, []])), json!(false));
    assert_ne!(draw("Tickets", &json!([])), ticket);
    assert_eq!(draw("Beacon", &json!([])), beacon, "the beacon is not the chain's");

    // What is known of the old branch is still to be read there.
    let at = json!([key(&old_head.key.0[0])]);
    assert!(!info(&at).is_null());
    assert_eq!(draw("Tickets", &at), ticket);
    let by_height: TipSet = from_value(net.call("ChainGetTipSetByHeight", json!([epoch, at]))).unwrap();
    let now: TipSet = from_value(net.call("ChainGetTipSetByHeight", json!([epoch, []]))).unwrap();
    assert_eq!(by_height.height, now.height);
    assert_ne!(by_height.to_ref(), now.to_ref());
    let after: TipSet = from_value(net.call("ChainGetTipSetAfterHeight", json!([epoch, at]))).unwrap();
    assert_eq!(after.to_ref(), by_height.to_ref());
    let mut parent = from_value::<TipSet>(net.call("ChainGetTipSet", json!([at]))).unwrap();
    while parent.height > old.epoch.0 {
        parent = from_value(net.call("ChainGetTipSet", json!([[key(&parent.parents().unwrap().0[0])]]))).unwrap();
    }
    assert_eq!(parent.to_ref(), old, "the branches meet below the fork");

    assert_eq!(net.pre_commit(&sector).receipt.exit_code.value(), 0, "life goes on");
}

#[test]
fn a_message_is_found_on_the_branch_that_is_asked() {
    let net = Net::bare();
    let cid = transfer(&net, 0);
    net.devnet.mine(2).unwrap();
    let old = json!([key(&net.devnet.head().key.0[0])]);
    let search = |from: &Value| net.call("StateSearchMsg", json!([from, key(&cid), -1, true]));
    let found = search(&json!([]));
    net.devnet.fork(&plan(2, MessageFate::Delay(2))).unwrap();
    assert!(search(&json!([])).is_null());
    assert_eq!(search(&old), found);
    net.devnet.mine(3).unwrap();
    let again = search(&json!([]));
    assert_eq!(again["Height"].as_i64().unwrap(), found["Height"].as_i64().unwrap() + 3);
    let early = json!([net.call("ChainGetTipSetByHeight", json!([net.epoch() - 2, []]))["Cids"][0]]);
    assert!(search(&early).is_null(), "not yet on chain there");
}

#[test]
fn what_cannot_be_forked_is_refused() {
    let net = Net::bare();
    let refused = |params: Value| net.devnet.call("Devnet.Fork", json!([params])).unwrap_err().message;
    assert!(refused(json!({"Depth": 0})).contains("depth 0"));
    assert!(refused(json!({"Depth": 1})).contains("final after 900 epochs"), "from 1,000 to genesis");
    assert!(refused(json!({"Depth": 7})).contains("not as long"));
    assert!(refused(json!({"Depth": u64::MAX})).contains("final"));
    assert!(refused(json!({"Depth": 1, "Wide": 2})).contains("Wide"));
    net.devnet.mine(3).unwrap();
    assert!(refused(json!({"Depth": 2, "Nulls": u64::MAX})).contains("no tipset"));
    let head = net.devnet.head();
    let forked = net.devnet.fork(&ForkPlan { depth: 3, extend: 1, nulls: 2, ..ForkPlan::default() }).unwrap();
    assert_eq!((forked.applied.len(), net.epoch()), (2, head.epoch.0 + 1), "two null rounds and one more tipset");
}

#[tokio::test]
async fn subscribers_are_told_what_went_and_what_came() {
    let net = Net::bare();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let (mut send, incoming) = mpsc::unbounded::<String>();
    let (outgoing, mut receive) = mpsc::unbounded::<String>();
    tokio::spawn(async move { rpc.serve_ws(incoming, outgoing).await });
    send.send(json!({"jsonrpc": "2.0", "id": 5, "method": "Filecoin.ChainNotify", "params": []}).to_string())
        .await
        .unwrap();
    // The chain as the subscriber knows it.
    let mut known: Vec<TipsetRef> = Vec::new();
    let mut follow = async |net: &Net, known: &mut Vec<TipsetRef>| {
        while known.last() != Some(&net.devnet.head()) {
            let text: Value = serde_json::from_str(&receive.next().await.unwrap()).unwrap();
            let Some(changes) = text["params"][1].as_array() else { continue };
            for change in changes {
                let change: HeadChange = from_value(change.clone()).unwrap();
                match change.kind {
                    HeadChangeKind::Current => *known = vec![change.val.to_ref()],
                    HeadChangeKind::Apply => {
                        let parent = known.last().map(|t| t.key.clone());
                        assert_eq!(change.val.parents(), parent, "applied on top of what was told before");
                        known.push(change.val.to_ref());
                    }
                    HeadChangeKind::Revert => assert_eq!(known.pop(), Some(change.val.to_ref())),
                }
            }
        }
    };
    follow(&net, &mut known).await;
    for round in 0..30_u64 {
        net.devnet.mine(1 + round % 4).unwrap();
        if round % 2 == 0 {
            follow(&net, &mut known).await;
        }
        let depth = 1 + round % u64::try_from(known.len()).unwrap().min(20);
        if u64::try_from(known.len()).unwrap() > depth {
            net.devnet.fork(&ForkPlan { depth, extend: round % 3, nulls: round % 2, ..ForkPlan::default() }).unwrap();
        }
        follow(&net, &mut known).await;
    }
    assert!(known.windows(2).all(|w| w[0].epoch < w[1].epoch));
}

#[test]
fn a_fork_survives_a_restart_and_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let mut net = Net::at(home.path());
    net.create_miner();
    let sector = net.active_sector(0);
    let cids: Vec<Cid> = (1..6).map(|n| transfer(&net, n)).collect();
    net.devnet.mine(2).unwrap();
    let before = (net.devnet.head(), std::fs::metadata(home.path().join("devnet.db")).unwrap().len());
    net.devnet.fork(&plan(2, MessageFate::Delay(4))).unwrap();
    let after = net.devnet.head();
    let (miner, place) = (net.miner, net.location(&sector));
    let finish = |net: &Net| {
        net.devnet.mine(6).unwrap();
        let landed: Vec<i64> = cids.iter().map(|c| net.devnet.landed(c).unwrap().epoch).collect();
        (landed, net.devnet.head(), balance(net, &net.worker.address()))
    };
    drop(net);
    let whole = std::fs::read(home.path().join("devnet.db")).unwrap();

    // In the middle of the record: there was no fork.
    let cut = tempfile::tempdir().unwrap();
    let middle = usize::try_from(before.1).unwrap() + (whole.len() - usize::try_from(before.1).unwrap()) / 2;
    std::fs::write(cut.path().join("devnet.db"), &whole[..middle]).unwrap();
    let net = Net::at(cut.path());
    assert_eq!(net.devnet.head(), before.0);
    assert!(cids.iter().all(|c| net.devnet.landed(c).is_some()));
    net.devnet.fork(&plan(2, MessageFate::Delay(4))).unwrap();
    assert_eq!(net.devnet.head(), after, "the same fork again is the same");
    let expected = finish(&net);

    let mut net = Net::at(home.path());
    net.miner = miner;
    assert_eq!((net.devnet.head(), net.location(&sector)), (after, place));
    assert!(cids.iter().all(|c| net.devnet.landed(c).is_none()));
    assert_eq!(finish(&net), expected, "what waited goes on waiting as long");
}

#[test]
fn a_snapshot_is_a_devnet() {
    let net = Net::with_miner();
    let sector = net.active_sector(0);
    let waiting = transfer(&net, 1);
    net.devnet.fork(&plan(3, MessageFate::Pool)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.snapshot");
    let head = net.devnet.snapshot(&path).unwrap();
    assert!(net.devnet.snapshot(&path).unwrap_err().chain().contains("one.snapshot"), "nothing is overwritten");
    let go_on = |devnet: Arc<Devnet>| {
        devnet.mine(30).unwrap();
        let at = json!([net.miner.to_string(), sector.number, []]);
        (
            devnet.landed(&waiting).unwrap().epoch,
            devnet.head(),
            devnet.call("Filecoin.StateSectorPartition", at).unwrap(),
        )
    };
    let verifier = || Arc::new(FakeVerifier);
    let in_memory = Devnet::restore(config(), verifier(), &path).unwrap();
    assert_eq!(in_memory.head(), head);
    let home = dir.path().join("home");
    let in_file = Devnet::restore_into(config(), verifier(), &path, &home).unwrap();
    let again = dir.path().join("two.snapshot");
    in_file.snapshot(&again).unwrap();
    assert!(Devnet::restore_into(config(), verifier(), &path, &home).is_err(), "there is one already");
    let expected = go_on(Arc::clone(&net.devnet));
    assert_eq!(go_on(in_memory), expected);
    assert_eq!(go_on(in_file), expected);
    assert_eq!(go_on(Devnet::restore(config(), verifier(), &again).unwrap()), expected);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(dir.path().join("cut"), &bytes[..7]).unwrap();
    assert!(Devnet::restore(config(), verifier(), &dir.path().join("cut")).is_err());
}

/// A long random run: pushes from three senders, forks of any depth with every fate, spikes, null rounds.
#[test]
fn no_message_lands_twice_and_no_money_is_lost() {
    let net = Net::bare();
    let whole = sum(&net);
    let mut seed = 0x5eed_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let senders = [Key::secp(1), Key::bls(2)];
    // Everything that was ever signed, so that what is lost can be pushed again.
    let mut signed = Vec::new();
    let mut next = [0_u64; 2];
    for _ in 0..150 {
        let who = usize::try_from(draw(2)).unwrap();
        for _ in 0..draw(4) {
            let message = Message {
                version: 0,
                from: senders[who].address(),
                to: Key::secp(50).address(),
                sequence: next[who],
                value: TokenAmount::from_atto(1),
                method_num: 0,
                params: RawBytes::default(),
                gas_limit: 3_000_000,
                gas_fee_cap: TokenAmount::from_atto(1_000_000),
                gas_premium: TokenAmount::from_atto(100_000 + draw(1000)),
            };
            next[who] += 1;
            signed.push(senders[who].sign(message));
            net.devnet.push(signed.last().unwrap().clone()).unwrap();
        }
        match draw(5) {
            0 => {
                net.devnet.grow_to(net.epoch() + 1 + i64::try_from(draw(4)).unwrap()).unwrap();
            }
            1 => {
                let fate =
                    [MessageFate::Mixed(draw(1000)), MessageFate::Drop, MessageFate::Delay(draw(9)), MessageFate::Pool]
                        [usize::try_from(draw(4)).unwrap()];
                let plan = ForkPlan { depth: 1 + draw(20), extend: draw(3), fate, ..ForkPlan::default() };
                // The first tipsets are too close to genesis.
                let _ = net.devnet.fork(&plan);
            }
            2 => net.devnet.spike_base_fee(TokenAmount::from_atto(10_000 + draw(10_000)), 1 + draw(3)).unwrap(),
            _ => {
                net.devnet.mine(1).unwrap();
            }
        }
    }
    for message in &signed {
        // Whoever has it says so.
        let _ = net.devnet.push(message.clone());
    }
    net.devnet.mine(40).unwrap();
    for message in &signed {
        assert!(net.devnet.landed(&message.cid()).is_some(), "nonce {}", message.message.sequence);
    }
    let all = net.devnet.call("Devnet.Messages", json!([null])).unwrap();
    let cids: Vec<String> = all.as_array().unwrap().iter().map(|m| m["Cid"].to_string()).collect();
    assert_eq!(cids.len(), signed.len());
    assert_eq!(cids.iter().collect::<HashSet<_>>().len(), cids.len());
    assert_eq!(balance(&net, &Key::secp(50).address()), i128::try_from(signed.len()).unwrap());
    assert_eq!(sum(&net), whole);
}
