//! Which key an operator's call gets, and which earlier one it is the same as.

use super::{super::client::ManagerChain, Entry};
use crate::exit::{Exit, Failure};
use anyhow::{Context as _, anyhow};
use damocles_chain::{OutboxState, encode};
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, MessageId, SubmitKey},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyPool, Row as _};

/// A call that an operator asks for.
///
/// Its key is `STEM/DIGEST/NUMBER`. The digest is that of the call as actors take it, so that one key never stands for two
/// calls; the number tells calls apart that are made again once the end of the one before was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Asked {
    stem: String,
    digest: String,
    any: bool,
    what: String,
    call: Call,
}

/// An earlier call that is the same as the one that is asked for, and whose end nobody was told.
#[derive(Clone, Debug)]
pub(in crate::manager) struct Earlier {
    /// The call.
    pub(in crate::manager) entry: Entry,
    /// What it does, in words, if that was noted.
    pub(in crate::manager) what: Option<String>,
}

/// A call that is in the outbox now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Begun {
    /// Its name.
    pub(in crate::manager) id: MessageId,
    /// Whether an earlier command had begun it.
    pub(in crate::manager) again: bool,
}

impl Asked {
    /// A call with what is said of it. With `any`, an earlier one of this stem counts as it whatever its numbers are:
    /// nobody named any, and they may have changed since.
    ///
    /// # Errors
    ///
    /// No actor would take the call.
    pub(in crate::manager) fn new(stem: String, any: bool, what: String, call: Call) -> Result<Self, Failure> {
        Ok(Self { stem, digest: digest(&call)?, any, what, call })
    }

    /// The call.
    pub(in crate::manager) fn call(&self) -> &Call {
        &self.call
    }

    /// What it does, in words.
    pub(in crate::manager) fn what(&self) -> &str {
        &self.what
    }

    fn key(&self, number: u64) -> String {
        format!("{}/{}/{number}", self.stem, self.digest)
    }

    /// The key of the first such call.
    pub(super) fn first(&self) -> SubmitKey {
        SubmitKey(self.key(1))
    }

    /// Whether a key is that of such a call.
    fn counts(&self, key: &str) -> bool {
        let rest = key.strip_prefix(&self.stem).and_then(|rest| rest.strip_prefix('/'));
        let Some((digest, number)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
        number.parse::<u64>().is_ok() && (self.any || digest == self.digest)
    }
}

/// The call in few digits. Both spellings of an address make one.
fn digest(call: &Call) -> Result<String, Failure> {
    let encoded = encode(call).map_err(|e| Failure::from(anyhow::Error::new(e)))?;
    let value = match call {
        Call::RepayDebt(call) => call.amount,
        Call::Send(call) => call.amount,
        _ => TokenAmount::ZERO,
    };
    let sender = call.sender().and_then(|sender| sender.as_str().get(1..)).unwrap_or_default();
    let parts = [&encoded.to.to_bytes(), &encoded.method.to_be_bytes()[..], sender.as_bytes()];
    let mut hash = Sha256::new();
    for part in parts.into_iter().chain([&value.atto().to_be_bytes()[..], encoded.params.bytes()]) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    Ok(hex::encode(hash.finalize().get(..6).unwrap_or_default()))
}

/// The calls whose end an operator was told, and what calls do in words.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pool: AnyPool,
    has_told: bool,
    has_begun: bool,
}

impl Told {
    /// Opens the tables; makes them if they are not there.
    pub(super) async fn open(pool: AnyPool) -> Result<Self, Failure> {
        for table in ["cli_told (submit_key TEXT PRIMARY KEY)", "cli_begun (submit_key TEXT PRIMARY KEY, what TEXT)"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("CREATE TABLE IF NOT EXISTS {table}")))
                .execute(&pool)
                .await
                .context("open the table of what operators were told")?;
        }
        Ok(Self { pool, has_told: true, has_begun: true })
    }

    /// Opens the tables that are there.
    pub(super) async fn look(pool: AnyPool) -> Result<Self, Failure> {
        let rows = sqlx::query("SELECT name FROM sqlite_master WHERE name IN ('cli_told', 'cli_begun')")
            .fetch_all(&pool)
            .await
            .context("look for the table of what operators were told")?;
        let names: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let has = |name: &str| names.iter().any(|n| n == name);
        Ok(Self { pool, has_told: has("cli_told"), has_begun: has("cli_begun") })
    }

    pub(super) async fn note(&self, id: &MessageId) -> Result<(), Failure> {
        sqlx::query("INSERT INTO cli_told (submit_key) VALUES ($1) ON CONFLICT (submit_key) DO NOTHING")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .with_context(|| format!("note the end of message {id}"))?;
        Ok(())
    }

    async fn knows(&self, key: &str) -> Result<bool, Failure> {
        if !self.has_told {
            return Ok(false);
        }
        let found = sqlx::query("SELECT submit_key FROM cli_told WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .context("look up what operators were told")?;
        Ok(found.is_some())
    }

    async fn what(&self, key: &str) -> Result<Option<String>, Failure> {
        if !self.has_begun {
            return Ok(None);
        }
        let found = sqlx::query("SELECT what FROM cli_begun WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .context("look up what a message does")?;
        Ok(found.and_then(|row| row.try_get(0).ok()))
    }

    /// The earlier call that is the same, if there is one. One that was given up is none: it does nothing any more.
    pub(super) async fn earlier(&self, entries: &[Entry], asked: &Asked) -> Result<Option<Earlier>, Failure> {
        for entry in entries {
            let key = &entry.message.key.0;
            if entry.message.state != OutboxState::Dropped && asked.counts(key) && !self.knows(key).await? {
                return Ok(Some(Earlier { entry: entry.clone(), what: self.what(key).await? }));
            }
        }
        Ok(None)
    }

    /// The key that a call gets that is begun now.
    pub(super) async fn next(&self, entries: &[Entry], asked: &Asked) -> Result<SubmitKey, Failure> {
        let mut number = 1_u64;
        loop {
            let key = asked.key(number);
            if !entries.iter().any(|entry| entry.message.key.0 == key) && !self.knows(&key).await? {
                return Ok(SubmitKey(key));
            }
            number += 1;
        }
    }

    /// Takes up the earlier call that is the same, or submits this one, if `from` is still who sends it.
    pub(super) async fn begin(&self, chain: &ManagerChain, asked: &Asked, from: &Address) -> Result<Begun, Failure> {
        let entries = chain.entries().await?;
        if let Some(earlier) = self.earlier(&entries, asked).await? {
            return Ok(Begun { id: MessageId::new(earlier.entry.message.key.0), again: true });
        }
        let key = self.next(&entries, asked).await?;
        let sends = chain.sender_of(&key, &asked.call).await?;
        if sends.as_str().get(1..) != from.as_str().get(1..) {
            let error = anyhow!("{sends} sends this now, and not {from}; nothing was sent");
            return Err(Failure::new(Exit::Retryable, error).hint(
                "a daemon was started meanwhile, or one of several senders is short of money or stuck; try again",
            ));
        }
        chain.takes(&key, &asked.call).await?;
        sqlx::query("INSERT INTO cli_begun (submit_key, what) VALUES ($1, $2) ON CONFLICT (submit_key) DO NOTHING")
            .bind(&key.0)
            .bind(&asked.what)
            .execute(&self.pool)
            .await
            .with_context(|| format!("note what message {key} does"))?;
        let id = chain.client().submit(&key, &asked.call).await?;
        Ok(Begun { id, again: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{
        ActorId,
        chain::{CallKind, RepayDebt, WithdrawBalance},
    };
    use sqlx::any::AnyPoolOptions;

    fn repay(stem: &str, any: bool, amount: i128) -> Asked {
        let call = Call::RepayDebt(RepayDebt { miner: ActorId(1000), amount: TokenAmount::from_atto(amount) });
        Asked::new(stem.to_owned(), any, format!("repay {amount}"), call).unwrap()
    }

    fn entry(key: &str, state: OutboxState) -> Entry {
        serde_json::from_value(serde_json::json!({
            "key": key, "kind": CallKind::Other, "state": state, "sender": null, "nonce": null, "cid": null,
            "error": null
        }))
        .unwrap()
    }

    async fn told() -> Told {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
        assert!(!Told::look(pool.clone()).await.unwrap().knows("k/1").await.unwrap(), "no table is no trouble");
        Told::open(pool).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_told_stays_told() {
        let told = told().await;
        assert!(!told.knows("withdraw/1000/5/1").await.unwrap());
        for _ in 0..2 {
            told.note(&MessageId::new("withdraw/1000/5/1")).await.unwrap();
        }
        for again in [Told::open(told.pool.clone()).await.unwrap(), Told::look(told.pool).await.unwrap()] {
            assert!(again.knows("withdraw/1000/5/1").await.unwrap());
            assert!(!again.knows("withdraw/1000/5/2").await.unwrap());
        }
    }

    #[tokio::test]
    async fn only_a_call_that_is_the_same_and_may_still_do_something_is_an_earlier_one() {
        let told = told().await;
        let five = repay("repaydebt/1000/5", false, 5);
        assert_ne!(five.digest, repay("repaydebt/1000/5", false, 6).digest, "the value counts");
        let (first, second) = (five.key(1), five.key(2));
        let entries = [
            entry("repaydebt/1000/5/abcdefabcdef/1", OutboxState::Signed),
            entry(&first, OutboxState::Dropped),
            entry(&second, OutboxState::Signed),
        ];
        let found = told.earlier(&entries, &five).await.unwrap().unwrap();
        assert_eq!(found.entry.message.key.0, second);
        told.note(&MessageId::new(second.as_str())).await.unwrap();
        assert!(told.earlier(&entries, &five).await.unwrap().is_none());

        // Nobody named an amount: one that was begun with another is the same command.
        let grown = repay("repaydebt/1000/all", true, 8);
        let begun = [entry(&repay("repaydebt/1000/all", true, 7).key(1), OutboxState::Recorded)];
        assert!(told.earlier(&begun, &grown).await.unwrap().is_some());
        assert!(told.earlier(&entries, &grown).await.unwrap().is_none());
    }

    #[test]
    fn both_spellings_of_an_address_are_one_call() {
        let withdraw = |from: &str| {
            let amount = TokenAmount::from_atto(5);
            digest(&Call::WithdrawBalance(WithdrawBalance {
                miner: ActorId(1000),
                amount,
                from: Some(from.parse().unwrap()),
            }))
            .unwrap()
        };
        assert_eq!(withdraw("t0101"), withdraw("f0101"));
        assert_ne!(withdraw("t0101"), withdraw("t0102"));
    }
}
