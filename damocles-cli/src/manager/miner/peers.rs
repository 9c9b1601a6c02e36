//! Where a miner is found.

use super::{
    super::{
        act::{self, Act},
        desk::Desk,
    },
    args::{MultiaddrsArgs, PeerIdArgs},
};
use crate::{exit::Failure, output::Render};
use damocles_core::chain::{Call, ChangeMultiaddrs, ChangePeerId};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Shown {
    peer_id: Option<String>,
}

impl Render for Shown {
    fn text(&self, _: bool) -> String {
        self.peer_id.clone().unwrap_or_else(|| "-".to_owned())
    }
}

/// `miner peer-id`.
pub(super) async fn peer_id(desk: &Desk<'_>, args: &PeerIdArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let miner = desk.node.miner(&desk.head, id).await?;
    if args.peer_id.is_none() && !args.clear {
        return desk.printer.data(&Shown { peer_id: miner.peer_id });
    }
    let name = desk.name(id);
    let act = Act {
        what: match &args.peer_id {
            Some(peer) => format!("set the peer ID of {name} to {peer}"),
            None => format!("remove the peer ID of {name}"),
        },
        stem: format!("peerid/{id}/{}", args.peer_id.as_ref().map_or("-", |peer| peer.as_str())),
        call: Call::ChangePeerId(ChangePeerId { miner: id, peer_id: args.peer_id.clone() }),
        remarks: vec![format!("it is {} now", miner.peer_id.as_deref().unwrap_or("not set"))],
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}

#[derive(Debug, Serialize)]
struct Addresses {
    multiaddrs: Vec<String>,
}

impl Render for Addresses {
    fn text(&self, _: bool) -> String {
        if self.multiaddrs.is_empty() { "-".to_owned() } else { self.multiaddrs.join("\n") }
    }
}

/// `miner multiaddrs`.
pub(super) async fn multiaddrs(desk: &Desk<'_>, args: &MultiaddrsArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let miner = desk.node.miner(&desk.head, id).await?;
    if args.addresses.is_empty() && !args.clear {
        return desk.printer.data(&Addresses { multiaddrs: miner.multiaddrs });
    }
    let name = desk.name(id);
    let list = args.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let act = Act {
        what: if list.is_empty() {
            format!("remove all addresses at which {name} is found")
        } else {
            format!("say that {name} is found at {}", list.join(", "))
        },
        stem: format!("multiaddrs/{id}/{}", list.join("+")),
        call: Call::ChangeMultiaddrs(ChangeMultiaddrs { miner: id, multiaddrs: args.addresses.clone() }),
        remarks: Vec::new(),
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}
