//! Answers as nodes give them, and how each is read.

use crate::setup::cid;
use cid::Cid;
use damocles_chain::lotus_json::{
    ActorState, Deadline, DeadlineInfo, HeadChange, InvocResult, Lotus, LotusJson, MessageReceipt, MinerInfo,
    MinerPower, MsgLookup, NetworkParams, Partition, SectorLocation, SectorOnChainInfo, SectorPreCommitOnChainInfo,
    SignedMessage, TipSet, Version,
};
use fvm_shared::{address::Address, bigint::BigInt, crypto::signature::Signature, econ::TokenAmount, message::Message};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

type Read = fn(Value) -> Result<Value, String>;

/// A method: an answer as nodes give it, and the type as which it is read.
pub(super) struct Case {
    pub(super) method: &'static str,
    /// Parameters that are not seen on the way; none where the client is made to send them.
    pub(super) request: Option<fn() -> Value>,
    pub(super) answer: fn() -> Value,
    pub(super) read: Read,
    /// Whether null is an answer.
    pub(super) null: bool,
}

/// Methods that answer null while the client is driven: what they find would lead on.
pub(super) const WITH_NULL: &[&str] = &["StateSearchMsg", "MpoolPending"];

fn plain<T: DeserializeOwned + Serialize>(answer: Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(answer).map_err(|e| e.to_string())?;
    serde_json::to_value(read).map_err(|e| e.to_string())
}

fn form<T: LotusJson>(answer: Value) -> Result<Value, String> {
    plain::<Lotus<T>>(answer)
}

fn list<T: DeserializeOwned + Serialize>(answer: Value) -> Result<Value, String> {
    plain::<Option<Vec<T>>>(answer)
}

fn randomness(answer: Value) -> Result<Value, String> {
    let Lotus(bytes): Lotus<Vec<u8>> = serde_json::from_value(answer).map_err(|e| e.to_string())?;
    if bytes.len() == 32 { plain::<Lotus<Vec<u8>>>(json!(Lotus(bytes))) } else { Err("not 32 bytes".to_owned()) }
}

const fn case(method: &'static str, answer: fn() -> Value, read: Read) -> Case {
    Case { method, request: None, answer, read, null: false }
}

const fn nullable(method: &'static str, answer: fn() -> Value, read: Read) -> Case {
    Case { null: true, ..case(method, answer, read) }
}

const fn by_hand(request: fn() -> Value, case: Case) -> Case {
    Case { request: Some(request), ..case }
}

/// The key of the tipset in every answer.
pub(super) fn key() -> String {
    cid(2000, 0)
}

fn link(n: i64) -> Value {
    json!({"/": cid(n, 3)})
}

fn tipset_key() -> Value {
    json!([{"/": key()}])
}

fn tipset() -> Value {
    json!({
        "Cids": tipset_key(),
        "Blocks": [{
            "Miner": "t01000", "Ticket": {"VRFProof": "AQID"}, "ElectionProof": {"WinCount": 1, "VRFProof": "AQID"},
            "BeaconEntries": [{"Round": 7, "Data": "AQID"}], "WinPoStProof": [{"PoStProof": 3, "ProofBytes": "AQID"}],
            "Parents": [{"/": cid(1999, 0)}], "ParentWeight": "12345", "Height": 2000, "ParentStateRoot": link(1),
            "ParentMessageReceipts": link(2), "Messages": link(3), "BLSAggregate": {"Type": 2, "Data": "AQID"},
            "Timestamp": 1_700_000_000, "BlockSig": {"Type": 2, "Data": "AQID"}, "ForkSignaling": 0,
            "ParentBaseFee": "100"
        }],
        "Height": 2000
    })
}

fn message() -> Value {
    let draft = json!({"Version": 0, "To": "t01000", "From": "t0101", "Nonce": 3, "Value": "7", "GasLimit": 1_000_000,
        "GasFeeCap": "200", "GasPremium": "100", "Method": 5, "Params": "gA=="});
    let read: Lotus<Message> = serde_json::from_value(draft).unwrap();
    json!(read)
}

fn signed() -> Value {
    let message: Lotus<Message> = serde_json::from_value(message()).unwrap();
    json!(SignedMessage { message: message.0, signature: Signature::new_bls(vec![1, 2, 3]) })
}

fn receipt() -> Value {
    json!({"ExitCode": 0, "Return": "gA==", "GasUsed": 900_000, "EventsRoot": null})
}

fn sector() -> Value {
    json!({
        "SectorNumber": 1, "SealProof": 5, "SealedCID": {"/": damocles_core::CommR([7; 32]).to_string()},
        "DeprecatedDealIDs": [], "Activation": 1100, "Expiration": 700_000, "DealWeight": "0",
        "VerifiedDealWeight": "0", "InitialPledge": "12", "ExpectedDayReward": null, "ExpectedStoragePledge": null,
        "PowerBaseEpoch": 1100, "ReplacedDayReward": null, "SectorKeyCID": null, "Flags": 1, "DailyFee": "3"
    })
}

fn pre_commit() -> Value {
    json!({
        "Info": {"SealProof": 5, "SectorNumber": 2, "SealedCID": {"/": damocles_core::CommR([7; 32]).to_string()},
            "SealRandEpoch": 1100, "DealIDs": [], "Expiration": 1_000_000, "UnsealedCid": null},
        "PreCommitDeposit": "5", "PreCommitEpoch": 1950
    })
}

fn miner() -> Value {
    json!({
        "Owner": "t0100", "Worker": "t0101", "NewWorker": "<empty>", "ControlAddresses": ["t0102"],
        "WorkerChangeEpoch": -1, "PeerId": "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf",
        "Multiaddrs": ["AQID"], "WindowPoStProofType": 10, "SectorSize": 2048, "WindowPoStPartitionSectors": 2,
        "ConsensusFaultElapsed": -1, "PendingOwnerAddress": null, "Beneficiary": "t0100",
        "BeneficiaryTerm": {"Quota": "0", "UsedQuota": "0", "Expiration": 0}, "PendingBeneficiaryTerm": null
    })
}

fn deadline() -> Value {
    json!({
        "CurrentEpoch": 2000, "PeriodStart": 0, "Index": 33, "Open": 1980, "Close": 2040, "Challenge": 1960,
        "FaultCutoff": 1910, "WPoStPeriodDeadlines": 48, "WPoStProvingPeriod": 2880, "WPoStChallengeWindow": 60,
        "WPoStChallengeLookback": 20, "FaultDeclarationCutoff": 70
    })
}

fn partitions() -> Value {
    json!([{"AllSectors": [1, 2], "FaultySectors": [0], "RecoveringSectors": [0], "LiveSectors": [1, 2],
        "ActiveSectors": [1, 1]}])
}

fn deadlines() -> Value {
    json!([{"PostSubmissions": [0], "DisputableProofCount": 0, "DailyFee": "0"},
        {"PostSubmissions": [0, 1], "DisputableProofCount": 1, "DailyFee": "7"}])
}

fn network() -> Value {
    json!({
        "NetworkName": "devnet-test", "BlockDelaySecs": 30, "ConsensusMinerMinPower": "2048",
        "PreCommitChallengeDelay": 10, "ForkUpgradeParams": {"UpgradeSmokeHeight": -1}, "Eip155ChainID": 31_415_926,
        "GenesisTimestamp": 1_600_000_000
    })
}

fn actor() -> Value {
    json!({"Code": link(1), "Head": link(2), "Nonce": 3, "Balance": "5000000000000000000000", "DelegatedAddress": null})
}

fn lookup() -> Value {
    json!({"Message": link(4), "Receipt": receipt(), "ReturnDec": null, "TipSet": tipset_key(), "Height": 2000})
}

fn invocation() -> Value {
    json!({
        "MsgCid": link(4), "Msg": message(), "MsgRct": {"ExitCode": 16, "Return": null, "GasUsed": 5, "EventsRoot": null},
        "GasCost": {"Message": link(4), "GasUsed": "5", "BaseFeeBurn": "1", "OverEstimationBurn": "1",
            "MinerPenalty": "0", "MinerTip": "1", "Refund": "2", "TotalCost": "3"},
        "ExecutionTrace": {"Msg": {}, "Subcalls": null}, "Error": "no (RetCode=16)", "Duration": 12345
    })
}

fn power() -> Value {
    let claim = json!({"RawBytePower": "2048", "QualityAdjPower": "4096"});
    json!({"MinerPower": claim, "TotalPower": claim, "HasMinPower": true})
}

fn head_change() -> Value {
    json!([{"Type": "current", "Val": tipset()}])
}

fn signature() -> Value {
    json!({"Type": 2, "Data": "AQID"})
}

fn drawn() -> Value {
    json!("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
}

fn parents() -> Value {
    json!([{"Cid": link(4), "Message": message()}])
}

/// One of the messages that a block's parents hold.
fn parent_messages(answer: Value) -> Result<Value, String> {
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parent {
        cid: Lotus<cid::Cid>,
        message: Lotus<Message>,
    }
    list::<Parent>(answer)
}

/// What the operator's view of a miner reads of its state.
fn state(answer: Value) -> Result<Value, String> {
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Read {
        balance: Lotus<TokenAmount>,
        code: Lotus<cid::Cid>,
        state: serde_json::Map<String, Value>,
    }
    plain::<Read>(answer)
}

/// All methods, in the order of their names.
pub(super) const CASES: &[Case] = &[
    case("ChainGetGenesis", tipset, plain::<TipSet>),
    by_hand(|| json!([link(4)]), case("ChainGetMessage", message, form::<Message>)),
    by_hand(|| json!([link(5)]), nullable("ChainGetParentMessages", parents, parent_messages)),
    by_hand(|| json!([link(5)]), nullable("ChainGetParentReceipts", || json!([receipt()]), list::<MessageReceipt>)),
    case("ChainGetTipSet", tipset, plain::<TipSet>),
    case("ChainGetTipSetByHeight", tipset, plain::<TipSet>),
    case("ChainHead", tipset, plain::<TipSet>),
    by_hand(|| json!([]), case("ChainNotify", head_change, plain::<Vec<HeadChange>>)),
    by_hand(|| json!([tipset_key()]), case("ChainTipSetWeight", || json!("123456"), form::<BigInt>)),
    case("GasEstimateMessageGas", message, form::<Message>),
    by_hand(|| json!([[signed()]]), case("MpoolBatchPush", || json!([link(4)]), plain::<Vec<Lotus<Cid>>>)),
    case("MpoolGetNonce", || json!(3), plain::<u64>),
    by_hand(|| json!([[]]), nullable("MpoolPending", || json!([signed()]), list::<SignedMessage>)),
    case("MpoolPush", || link(4), form::<Cid>),
    case("StateAccountKey", || json!("t01001"), form::<Address>),
    by_hand(|| json!([message(), tipset_key()]), case("StateCall", invocation, plain::<InvocResult>)),
    case("StateGetActor", actor, plain::<ActorState>),
    case("StateGetNetworkParams", network, plain::<NetworkParams>),
    case("StateGetRandomnessFromBeacon", drawn, randomness),
    case("StateGetRandomnessFromTickets", drawn, randomness),
    case("StateLookupID", || json!("t0101"), form::<Address>),
    case("StateMinerAvailableBalance", || json!("7"), form::<TokenAmount>),
    case("StateMinerCreationDeposit", || json!("7"), form::<TokenAmount>),
    case("StateMinerDeadlines", deadlines, plain::<Vec<Deadline>>),
    case("StateMinerInfo", miner, plain::<MinerInfo>),
    case("StateMinerInitialPledgeForSector", || json!("7"), form::<TokenAmount>),
    nullable("StateMinerPartitions", partitions, list::<Partition>),
    case("StateMinerPower", power, plain::<MinerPower>),
    case("StateMinerPreCommitDepositForPower", || json!("7"), form::<TokenAmount>),
    case("StateMinerProvingDeadline", deadline, plain::<DeadlineInfo>),
    case("StateMinerSectorAllocated", || json!(true), plain::<bool>),
    nullable("StateMinerSectors", || json!([sector()]), list::<SectorOnChainInfo>),
    case("StateNetworkName", || json!("devnet-test"), plain::<String>),
    case("StateNetworkVersion", || json!(28), plain::<u32>),
    by_hand(
        || json!(["t01000", tipset_key()]),
        case("StateReadState", || json!({"Balance": "9", "Code": link(1), "State": {"FeeDebt": "0"}}), state),
    ),
    by_hand(|| json!([[], link(4)]), case("StateReplay", invocation, plain::<InvocResult>)),
    by_hand(
        || json!([tipset_key(), link(4), -1, true]),
        nullable("StateSearchMsg", lookup, plain::<Option<MsgLookup>>),
    ),
    nullable("StateSectorGetInfo", sector, plain::<Option<SectorOnChainInfo>>),
    case("StateSectorPartition", || json!({"Deadline": 1, "Partition": 0}), plain::<SectorLocation>),
    nullable("StateSectorPreCommitInfo", pre_commit, plain::<Option<SectorPreCommitOnChainInfo>>),
    case(
        "Version",
        || json!({"Version": "1.36.2+mainnet", "APIVersion": 131_840, "BlockDelay": 30, "Agent": "lotus"}),
        plain::<Version>,
    ),
    case("WalletBalance", || json!("5000000000000000000"), form::<TokenAmount>),
    case("WalletHas", || json!(true), plain::<bool>),
    case("WalletList", || json!(["t01001"]), plain::<Vec<Lotus<Address>>>),
    case("WalletSign", signature, form::<Signature>),
    case("WalletSignMessage", signed, plain::<SignedMessage>),
];

fn with(mut answer: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
    }
    answer
}

fn less(mut answer: Value, names: &[&str]) -> Value {
    for name in names {
        answer.as_object_mut().unwrap().remove(*name);
    }
    answer
}

fn genesis() -> Value {
    let mut tipset = tipset();
    (tipset["Height"], tipset["Blocks"][0]["Height"]) = (json!(0), json!(0));
    tipset
}

/// Answers that some node gives and another would not.
pub(super) fn variants() -> Vec<(&'static str, Value)> {
    let block = |changes: Value| {
        let mut tipset = tipset();
        tipset["Blocks"][0] = with(tipset["Blocks"][0].clone(), changes);
        tipset
    };
    vec![
        // Go writes a list without items, and bytes without any, as null; Rust as empty.
        (
            "ChainHead",
            block(json!({"BeaconEntries": null, "WinPoStProof": null, "Parents": null, "BLSAggregate": null})),
        ),
        ("ChainHead", block(json!({"BeaconEntries": [], "WinPoStProof": [], "ElectionProof": null, "BlockSig": null}))),
        ("ChainHead", block(json!({"Ticket": null, "New": {"Field": 1}}))),
        ("ChainGetGenesis", genesis()),
        ("ChainGetMessage", with(message(), json!({"Params": null}))),
        ("ChainGetMessage", with(message(), json!({"Params": "", "To": "f01000", "From": "f0101"}))),
        ("ChainGetMessage", less(message(), &["CID", "Version"])),
        ("ChainGetParentReceipts", json!([less(with(receipt(), json!({"Return": null})), &["EventsRoot"])])),
        ("MpoolPending", json!([])),
        ("MpoolPending", json!([less(signed(), &["CID"])])),
        ("StateMinerInfo", with(miner(), json!({"ControlAddresses": null, "Multiaddrs": null, "PeerId": null}))),
        ("StateMinerInfo", with(miner(), json!({"ControlAddresses": [], "Multiaddrs": [], "NewWorker": null}))),
        ("StateMinerInfo", with(miner(), json!({"NewWorker": "", "BeneficiaryTerm": null, "Owner": "f0100"}))),
        ("StateMinerInfo", less(miner(), &["PendingBeneficiaryTerm", "PendingOwnerAddress", "Beneficiary"])),
        ("StateMinerPartitions", json!([])),
        ("StateMinerDeadlines", json!([{"PostSubmissions": [], "DisputableProofCount": 0}])),
        ("StateMinerSectors", json!([])),
        (
            "StateSectorGetInfo",
            with(sector(), json!({"DeprecatedDealIDs": null, "DealWeight": null, "DailyFee": null})),
        ),
        ("StateSectorGetInfo", with(sector(), json!({"ExpectedDayReward": "1", "ExpectedStoragePledge": "2"}))),
        ("StateSectorGetInfo", less(sector(), &["DeprecatedDealIDs", "ReplacedDayReward", "DailyFee", "Flags"])),
        ("StateSectorPreCommitInfo", {
            let mut info = pre_commit();
            info["Info"]["DealIDs"] = Value::Null;
            info["Info"].as_object_mut().unwrap().remove("UnsealedCid");
            info
        }),
        ("StateGetActor", less(actor(), &["DelegatedAddress"])),
        ("StateGetActor", with(actor(), json!({"DelegatedAddress": "f410fkkld55ioe7qg24wvt7fu6pbknb56ht7pt4zamxa"}))),
        ("StateGetNetworkParams", less(network(), &["Eip155ChainID", "GenesisTimestamp", "ForkUpgradeParams"])),
        ("StateSearchMsg", with(lookup(), json!({"ReturnDec": {"A": 1}}))),
        ("StateSearchMsg", less(lookup(), &["ReturnDec"])),
        ("StateReplay", less(invocation(), &["Msg", "GasCost", "Duration", "ExecutionTrace"])),
        ("StateReplay", with(invocation(), json!({"MsgRct": null, "GasCost": null, "Msg": null}))),
        ("StateMinerPower", less(power(), &["HasMinPower"])),
        ("Version", json!({"Version": "forest-0.39.0", "APIVersion": 131_840, "BlockDelay": 30})),
        ("WalletSign", with(signature(), json!({"Type": 1}))),
        ("WalletList", json!([])),
    ]
}
