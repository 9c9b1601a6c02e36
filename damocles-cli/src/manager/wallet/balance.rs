//! What keys own.

use super::{args::BalanceArgs, command::Desk};
use crate::{
    config::ManagerConfig,
    exit::Failure,
    frame,
    manager::chain,
    output::{Render, table},
};
use damocles_chain::{
    lotus_json::Lotus,
    rpc::{RpcClient, RpcOptions},
};
use damocles_core::{
    Address, TokenAmount,
    chain::{ChainError, ChainErrorKind},
};
use fvm_shared::econ;
use serde::Serialize;
use serde_json::json;

/// Shows what addresses own at the head of the node that the configuration names.
pub(super) fn show(desk: &Desk<'_>, args: &BalanceArgs) -> Result<(), Failure> {
    let config = ManagerConfig::load(desk.home.config())?;
    let rpc = RpcClient::with_endpoints(chain::endpoints(&config, desk.home)?, RpcOptions::default())?;
    let addresses = if args.addresses.is_empty() {
        let keys = desk.unlocked()?.keys()?;
        keys.into_iter().filter(|key| key.deleted.is_none()).map(|key| key.address).collect()
    } else {
        args.addresses.clone()
    };
    let balances = frame::runtime()?.block_on(async {
        let mut balances = Vec::new();
        for address in addresses {
            balances.push(Balance { balance: balance(&rpc, &address).await?, address });
        }
        Ok::<_, ChainError>(balances)
    })?;
    desk.printer.data(&Balances { balances })
}

async fn balance(rpc: &RpcClient, address: &Address) -> Result<TokenAmount, ChainError> {
    let Lotus(amount): Lotus<econ::TokenAmount> = rpc.call("WalletBalance", json!([address])).await?;
    i128::try_from(amount.atto()).map(TokenAmount::from_atto).map_err(|e| {
        ChainError::new(ChainErrorKind::Malformed, "read balance").with("endpoint", rpc.endpoint()).because(e)
    })
}

#[derive(Debug, Serialize)]
struct Balances {
    balances: Vec<Balance>,
}

#[derive(Debug, Serialize)]
struct Balance {
    address: Address,
    balance: TokenAmount,
}

impl Render for Balances {
    fn text(&self, color: bool) -> String {
        let rows = self.balances.iter().map(|b| [b.address.to_string(), b.balance.to_string()]);
        table(&["ADDRESS", "BALANCE"], rows, color)
    }
}
