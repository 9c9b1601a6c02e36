//! `miner create`.

use super::{args::CreateMinerArgs, chain, init::write_text, signer};
use crate::{
    config::{
        ManagerConfig, Source,
        manager::{Home, MinerSection},
    },
    database::Database,
    exit::Failure,
    output::Render,
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{LotusClient, signer::KeyKind};
use damocles_core::{
    ActorId, Address, Context, NullSink,
    chain::{Call, ChainClient, ChainClientExt as _, CreateMiner, MessageId, MessageState, SubmitKey},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A miner that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The miner.
    pub miner: ActorId,
    /// The message that made it.
    pub message: String,
}

impl Render for Created {
    fn text(&self, _: bool) -> String {
        format!("miner   t0{}\nmessage {}", self.miner, self.message)
    }
}

/// Makes a miner and writes it into the configuration. Repeated after a crash, it finds the first one by its key.
///
/// # Errors
///
/// The message cannot be sent, or the actor refuses it.
pub async fn create(args: &CreateMinerArgs, home: &Home, cx: &Context) -> Result<Created, Failure> {
    let config = ManagerConfig::load(home.config())?;
    let signer = signer::open(&config, home)?;
    let owner = signer::only_key(signer.as_ref(), KeyKind::Secp256k1, "`--owner`").await?;
    let worker = signer::only_key(signer.as_ref(), KeyKind::Bls, "`--worker`").await?;
    let database = Database::open(&home.database()).await?;
    let client = chain::connect(&config, Arc::clone(&signer), database.pool.clone(), Arc::new(NullSink)).await?;
    let head = client.head().await?;
    chain::admit(&config, signer.as_ref(), &client.network(&head).await?.name)?;
    let call = Call::CreateMiner(CreateMiner::new(owner.clone(), worker, args.sector_size));
    let key = next_key(&owner, &client, &config).await?;
    let sending = client.run(cx.cancel.clone());
    let landing = async {
        let id = client.submit(&key, &call).await?;
        client.landed(&id, i64::from(config.commitment.confidence), cx).await
    };
    let receipt = tokio::select! {
        receipt = landing => receipt?,
        () = sending => return Err(anyhow!("cancelled before the miner was made").into()),
    };
    let said = receipt.error.as_deref().unwrap_or("nothing");
    let refused = || anyhow!("the power actor made no miner (exit code {}, it said: {said})", receipt.exit_code);
    let miner = receipt.created.filter(|_| receipt.is_success()).with_context(refused)?;
    let mut section = MinerSection::new(miner);
    section.max_sectors = args.max_sectors;
    section.lifetime_days = config.miners.first().map_or(section.lifetime_days, |first| first.lifetime_days);
    // The file as it is now: whatever an operator wrote there stays.
    let source = Source::read(home.config())?;
    let by_hand = |error| {
        let hint = format!("the miner is made; add it to the file by hand: {}", section.to_toml().replace('\n', " "));
        Failure::from(error).hint(hint)
    };
    write_text(home, &ManagerConfig::with_miner(&source, &section).map_err(by_hand)?)?;
    Ok(Created { miner, message: receipt.message.clone() })
}

/// The key of the first creation that is not over, or of a new one. A repeat after a crash finds the message that was
/// sent; one after a refusal, or for a further miner, sends another.
async fn next_key(owner: &Address, client: &LotusClient, config: &ManagerConfig) -> Result<SubmitKey, Failure> {
    let outbox = client.outbox().await?;
    let mut attempt = 1_u32;
    loop {
        let key = SubmitKey(format!("createminer/{owner}/{attempt}"));
        if !outbox.iter().any(|entry| entry.key == key) {
            return Ok(key);
        }
        let known = |miner| config.miners.iter().any(|section| section.actor == miner);
        let over = match client.message(&MessageId::new(key.0.clone()), 0).await? {
            MessageState::Landed(receipt) => !receipt.is_success() || receipt.created.is_none_or(known),
            MessageState::Dropped { .. } => true,
            _ => false,
        };
        if !over {
            return Ok(key);
        }
        attempt += 1;
    }
}
