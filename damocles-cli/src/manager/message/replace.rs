//! What a replacement costs, in words.

use super::{
    super::{
        desk::Desk,
        look::gas_price,
        outbox::{Entry, Most, Standing},
    },
    args::ReplaceArgs,
};
use crate::exit::Failure;
use damocles_chain::MessageVersion;
use damocles_core::{Address, TokenAmount};
use std::fmt::Write as _;

/// What an operator has to know before a message is replaced: above all what it may cost.
pub(super) async fn plan(
    desk: &Desk<'_>,
    args: &ReplaceArgs,
    before: &Entry,
    standing: &Standing,
) -> Result<String, Failure> {
    let m = &before.message;
    let mut text = format!("This will replace the message of `{}` by one that does the same.\n", m.key);
    // Writing to a string cannot fail.
    let _ = write!(text, "  network  {}", desk.network);
    if let Some(sender) = m.sender.as_ref().and_then(|sender| sender.parse::<Address>().ok()) {
        let balance = desk.node.balance(&sender).await?;
        let _ = write!(text, "\n  from     {} (has {balance})", desk.spell(&sender));
    }
    let most = Most::of(&standing.fees, m.kind, false);
    text.push_str(&price(args, m.versions.last(), most));
    Ok(text)
}

fn price(args: &ReplaceArgs, now: Option<&MessageVersion>, most: Most) -> String {
    let said = |asked: Option<TokenAmount>, now: Option<TokenAmount>| {
        let asked = asked.map_or_else(|| "by policy".to_owned(), gas_price);
        now.map_or(asked.clone(), |now| format!("{asked}, now {}", gas_price(now)))
    };
    let mut text = format!(
        "\n  fee cap  {}\n  premium  {}",
        said(args.fee_cap, now.map(|v| v.fee_cap)),
        said(args.premium, now.map(|v| v.premium))
    );
    let limit = args.gas_limit.or(now.map(|v| v.gas_limit));
    if let Some(limit) = limit {
        let _ = write!(text, "\n  gas      {limit}");
    }
    match (args.fee_cap, limit) {
        (Some(cap), Some(limit)) => {
            let fee = TokenAmount::from_atto(cap.atto().saturating_mul(i128::from(limit)));
            let _ = write!(text, "\n  fee      at most {fee}; by policy a message of its class pays {most}");
            if fee > most.class {
                let _ = write!(text, "\n  note     that is {} beyond the policy", fee - most.class);
            }
        }
        (None, Some(limit)) if args.premium.is_some() => {
            let _ =
                write!(text, "\n  fee      {most}, or the base fee and the premium for {limit} gas where that is more");
        }
        _ => {
            let _ = write!(text, "\n  fee      {most}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::super::confirm::Agreed, super::args::MessageArgs, *};
    use damocles_chain::{Fees, VersionPurpose};
    use damocles_core::chain::CallKind;

    #[test]
    fn what_a_replacement_may_cost_is_said() {
        let now = MessageVersion {
            cid: "c".to_owned(),
            purpose: VersionPurpose::Call,
            fee_cap: TokenAmount::from_atto(100),
            premium: TokenAmount::from_atto(7),
            gas_limit: 1_000_000,
            epoch: None,
        };
        let mut args = ReplaceArgs {
            message: MessageArgs { id: "k".to_owned() },
            fee_cap: None,
            premium: None,
            gas_limit: None,
            consent: Agreed { really_do_it: true },
        };
        let most = Most::of(&Fees::default(), CallKind::Other, false);
        insta::assert_snapshot!(price(&args, Some(&now), most), @r"

          fee cap  by policy, now 100 attoFIL
          premium  by policy, now 7 attoFIL
          gas      1000000
          fee      never more than 0.5 FIL
        ");
        args.fee_cap = Some(TokenAmount::from_fil(200));
        insta::assert_snapshot!(price(&args, Some(&now), most), @r"

          fee cap  200000000000 nanoFIL, now 100 attoFIL
          premium  by policy, now 7 attoFIL
          gas      1000000
          fee      at most 200000000 FIL; by policy a message of its class pays never more than 0.5 FIL
          note     that is 199999999.5 FIL beyond the policy
        ");
    }
}
