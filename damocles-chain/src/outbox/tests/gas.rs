//! What a message needs can grow while it waits.

use super::{
    replace::{atto, fees, versions},
    *,
};
use crate::outbox::Ratio;

#[tokio::test]
async fn a_replacement_has_the_gas_that_is_needed_by_now_within_its_ceiling() {
    // What the node says when the message is replaced, and the limit and the ceiling on the fee cap that follow.
    let generous = Ratio::thousandths(1500).unwrap();
    for (says, ratio, limit) in [
        (Says::More(0), Ratio::ONE, 1000),
        (Says::More(500), Ratio::ONE, 1500),
        (Says::More(500), generous, 2250),
        // A million for the whole message would leave one attoFIL a unit of gas, and the base fee is 100.
        (Says::More(999_000), Ratio::ONE, 1000),
        // No block has that much.
        (Says::More(u64::MAX / 2), Ratio::ONE, 1000),
        (Says::Nothing, Ratio::ONE, 1000),
        (Says::Guess(500), Ratio::ONE, 1000),
    ] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        (node.chain.lock().base_fee, node.chain.lock().premium) = (atto(100), atto(100));
        let mut fees = fees();
        let outbox = bench.outbox_with(&node, fees.clone()).await;
        outbox.submit(&key(1), &call(1)).await.unwrap();
        outbox.pass(&node.head()).await;
        drop(outbox);
        fees.post.gas_over_estimation = ratio;
        let outbox = bench.outbox_with(&node, fees).await;
        {
            let mut chain = node.chain.lock();
            match says {
                Says::More(gas) => chain.more_gas = gas,
                Says::Nothing => chain.cannot_run = true,
                Says::Guess(gas) => (chain.more_gas, chain.guesses) = (gas, true),
            }
            chain.height += 4;
        }
        outbox.pass(&node.head()).await;
        let all = versions(&outbox, 1).await;
        assert_eq!(all.len(), 2, "{says:?}: it is replaced whatever the node says");
        assert_eq!((all[0].gas_limit, all[1].gas_limit), (1000, limit), "{says:?}");
        assert!(all[1].fee_cap.atto() * i128::from(all[1].gas_limit) <= 1_000_000, "{says:?}: {all:?}");
        assert!(all[1].premium > all[0].premium && all[1].fee_cap >= all[1].premium);
        // Nothing but the price is another.
        let row = outbox.store.get(&key(1).0).await.unwrap().unwrap();
        let (old, new) = (&row.older[0].signed.message, &row.version.as_ref().unwrap().signed.message);
        assert!(crate::outbox::lookup::same_call(old, new));
        assert_eq!(node.chain.lock().pool[&0].message, *new);
        // Needing less again takes nothing away.
        {
            let mut chain = node.chain.lock();
            (chain.more_gas, chain.cannot_run) = (0, false);
            chain.height += 4;
        }
        outbox.pass(&node.head()).await;
        assert_eq!(versions(&outbox, 1).await.last().unwrap().gas_limit, limit, "{says:?}");
        settle_all(&node, &outbox, &[key(1)]).await;
        assert_eq!(node.landed(), [0]);
    }
}

/// What a node says that a message needs.
#[derive(Clone, Copy, Debug)]
enum Says {
    More(u64),
    Nothing,
    Guess(u64),
}
