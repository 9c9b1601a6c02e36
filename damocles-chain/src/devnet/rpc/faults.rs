//! What goes wrong on command: requests and answers that are lost, late, doubled or untrue.
//!
//! Each rule draws for itself, from the seed, its place in the list and how often it was looked at. The same requests in
//! the same order per method meet the same faults, whatever else goes on.

use super::args::RpcFault;
use crate::devnet::randomness::blake2b;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// The most rules, and the longest delay, that are taken.
const MAX_RULES: usize = 1000;
const MAX_DELAY_MILLIS: u64 = 600_000;
const MAX_GARBAGE: usize = 1 << 20;

/// The rules that are in force.
#[derive(Debug, Default)]
pub(in crate::devnet) struct Faults {
    any: AtomicBool,
    plan: Mutex<Plan>,
}

/// A seed and the rules that draw from it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(super) struct Plan {
    seed: u64,
    rules: Vec<Rule>,
}

/// When something goes wrong, and what.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Rule {
    /// A method's full name; `*` is every method of the node; `xrpc.ch.val` is what a channel tells.
    method: String,
    kind: Kind,
    /// How likely, in a thousand.
    #[serde(default = "always")]
    per_mille: u32,
    /// How often it is passed over first.
    #[serde(default)]
    skip: u64,
    /// How often it strikes at most.
    #[serde(default)]
    times: Option<u64>,
    #[serde(default, skip_deserializing)]
    seen: u64,
    #[serde(default, skip_deserializing)]
    hit: u64,
}

const fn always() -> u32 {
    1000
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", rename_all_fields = "PascalCase", deny_unknown_fields)]
pub(super) enum Kind {
    /// The request never arrives.
    DropRequest,
    /// It is done, and nobody hears of it.
    DropAnswer,
    /// The request arrives late.
    DelayRequest(Delay),
    /// The answer arrives late.
    DelayAnswer(Delay),
    /// The request arrives twice; the first answer is the one that is heard.
    DuplicateRequest,
    /// The answer arrives twice, where the transport can tell.
    DuplicateAnswer,
    /// The answer is that of so many epochs ago, for all that names no tipset.
    Stale(i64),
    /// A number in the answer is off by so much.
    Offset(i64),
    /// The answer is null.
    Null,
    /// The answer is this error.
    Error { code: i64, message: String },
    /// The answer is this text, which need not be JSON.
    Garbage(String),
}

/// How late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Delay {
    millis: u64,
    /// Up to so much more, drawn with the seed.
    #[serde(default)]
    jitter: u64,
}

/// What strikes one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Struck(pub(super) Vec<Kind>);

impl Struck {
    pub(super) fn has(&self, kind: &Kind) -> bool {
        self.0.contains(kind)
    }

    /// How long to wait before the request.
    pub(super) fn before(&self) -> Duration {
        self.0.iter().filter_map(|k| if let Kind::DelayRequest(d) = k { Some(d.duration()) } else { None }).sum()
    }

    /// How long to wait after it.
    pub(super) fn after(&self) -> Duration {
        self.0.iter().filter_map(|k| if let Kind::DelayAnswer(d) = k { Some(d.duration()) } else { None }).sum()
    }

    /// How many epochs back the answer comes from.
    pub(super) fn stale(&self) -> Option<i64> {
        self.0.iter().find_map(|k| if let Kind::Stale(epochs) = k { Some(*epochs) } else { None })
    }

    /// Makes an answer untrue.
    pub(super) fn falsify(&self, answer: String) -> String {
        self.0.iter().fold(answer, |answer, kind| match kind {
            Kind::Offset(by) => edit(&answer, |answer| {
                if let Some(n) = answer.get("result").and_then(Value::as_i64) {
                    answer.insert("result".to_owned(), json!(n.saturating_add(*by).max(0)));
                }
            }),
            Kind::Null => edit(&answer, |answer| {
                answer.remove("error");
                answer.insert("result".to_owned(), Value::Null);
            }),
            Kind::Error { code, message } => edit(&answer, |answer| {
                answer.remove("result");
                answer.insert("error".to_owned(), json!({"code": code, "message": message}));
            }),
            Kind::Garbage(text) => text.clone(),
            _ => answer,
        })
    }
}

/// Changes an answer, or each of a batch.
fn edit(answer: &str, change: impl Fn(&mut serde_json::Map<String, Value>)) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(answer) else { return answer.to_owned() };
    match &mut value {
        Value::Object(one) => change(one),
        Value::Array(all) => all.iter_mut().filter_map(Value::as_object_mut).for_each(change),
        _ => {}
    }
    value.to_string()
}

impl Delay {
    const fn duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl Faults {
    /// Whether there is any rule at all.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Puts other rules in force; none are the end of all faults.
    pub(super) fn set(&self, plan: Plan) -> Result<(), RpcFault> {
        if plan.rules.len() > MAX_RULES {
            return Err(RpcFault::params(format!("at most {MAX_RULES} rules")));
        }
        for rule in &plan.rules {
            let fits = match &rule.kind {
                Kind::DelayRequest(d) | Kind::DelayAnswer(d) => d.millis.saturating_add(d.jitter) <= MAX_DELAY_MILLIS,
                Kind::Garbage(text) => text.len() <= MAX_GARBAGE,
                Kind::Stale(epochs) => (1..=1_000_000).contains(epochs),
                _ => true,
            };
            if !fits || rule.per_mille > always() {
                return Err(RpcFault::params(format!("the rule for {} is out of bounds", rule.method)));
            }
        }
        let any = !plan.rules.is_empty();
        let mut now = self.plan.lock();
        *now = plan;
        self.any.store(any, Ordering::Release);
        Ok(())
    }

    /// The rules with what became of each.
    pub(super) fn report(&self) -> Result<Value, RpcFault> {
        let plan = self.plan.lock();
        let rules = super::args::plain(&plan.rules)?;
        Ok(json!({"Seed": plan.seed, "Rules": rules}))
    }

    /// What strikes a request.
    pub(super) fn strike(&self, method: &str) -> Struck {
        if !self.any() {
            return Struck::default();
        }
        let mut plan = self.plan.lock();
        let seed = plan.seed;
        let struck = plan.rules.iter_mut().enumerate().filter_map(|(at, rule)| rule.look(seed, at as u64, method));
        Struck(struck.collect())
    }
}

impl Rule {
    fn look(&mut self, seed: u64, at: u64, method: &str) -> Option<Kind> {
        let all = self.method == "*" && method.starts_with("Filecoin.");
        if !all && self.method != method {
            return None;
        }
        self.seen += 1;
        if self.seen <= self.skip || self.times.is_some_and(|times| self.hit >= times) {
            return None;
        }
        let digest = blake2b(&[seed, at, self.seen].map(u64::to_be_bytes).concat());
        let (chance, more) = digest.split_first_chunk::<8>()?;
        if u64::from_be_bytes(*chance) % 1000 >= u64::from(self.per_mille) {
            return None;
        }
        self.hit += 1;
        let jitter = |delay: Delay| {
            let drawn = more.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            Delay { millis: delay.millis + drawn % (delay.jitter + 1), jitter: 0 }
        };
        Some(match &self.kind {
            Kind::DelayRequest(delay) => Kind::DelayRequest(jitter(*delay)),
            Kind::DelayAnswer(delay) => Kind::DelayAnswer(jitter(*delay)),
            other => other.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(plan: Value) -> Faults {
        let faults = Faults::default();
        faults.set(serde_json::from_value(plan).unwrap()).unwrap();
        faults
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let draw = |seed: u64, others: usize| {
            let faults = faults(json!({"Seed": seed, "Rules": [
                {"Method": "Filecoin.MpoolPush", "Kind": "DropAnswer", "PerMille": 300},
                {"Method": "*", "Kind": {"DelayRequest": {"Millis": 5, "Jitter": 20}}, "PerMille": 500},
            ]}));
            (0..100)
                .map(|_| {
                    for _ in 0..others {
                        faults.strike("Devnet.Info");
                    }
                    faults.strike("Filecoin.MpoolPush")
                })
                .collect::<Vec<_>>()
        };
        let once = draw(7, 0);
        assert_eq!(once, draw(7, 3), "what no rule is about changes nothing");
        assert_ne!(once, draw(8, 0));
        let dropped = once.iter().filter(|s| s.has(&Kind::DropAnswer)).count();
        assert!((15..45).contains(&dropped), "{dropped} of 100 at three tenths");
        assert!(once.iter().any(|s| s.before() > Duration::from_millis(20)));
    }

    #[test]
    fn a_rule_skips_and_ends() {
        let faults =
            faults(json!({"Rules": [{"Method": "Filecoin.ChainHead", "Kind": "Null", "Skip": 2, "Times": 3}]}));
        let hits: Vec<bool> = (0..8).map(|_| faults.strike("Filecoin.ChainHead").has(&Kind::Null)).collect();
        assert_eq!(hits, [false, false, true, true, true, false, false, false]);
        let report = faults.report().unwrap();
        assert_eq!((report["Rules"][0]["Seen"].clone(), report["Rules"][0]["Hit"].clone()), (json!(8), json!(3)));
        faults.set(Plan::default()).unwrap();
        assert!(!faults.any());
    }

    #[test]
    fn answers_are_made_untrue() {
        let answer = |kind: Kind| Struck(vec![kind]).falsify(r#"{"jsonrpc":"2.0","id":1,"result":5}"#.to_owned());
        let value = |kind| serde_json::from_str::<Value>(&answer(kind)).unwrap();
        assert_eq!(value(Kind::Offset(-2))["result"], 3);
        assert_eq!(value(Kind::Offset(-9))["result"], 0);
        assert!(value(Kind::Null)["result"].is_null());
        let error = value(Kind::Error { code: -32000, message: "no".to_owned() });
        assert_eq!((error["error"]["code"].clone(), error.get("result")), (json!(-32000), None));
        assert_eq!(answer(Kind::Garbage("<html>".to_owned())), "<html>");
    }

    #[test]
    fn rules_out_of_bounds_are_refused() {
        for bad in [
            json!({"Rules": [{"Method": "a", "Kind": "Explode"}]}),
            json!({"Rules": [{"Method": "a", "Kind": "Null", "Often": 1}]}),
            json!({"Rules": [{"Kind": "Null"}]}),
            json!({"Seeds": 1}),
        ] {
            assert!(serde_json::from_value::<Plan>(bad.clone()).is_err(), "{bad}");
        }
        for bad in [
            json!({"Rules": [{"Method": "a", "Kind": "Null", "PerMille": 1001}]}),
            json!({"Rules": [{"Method": "a", "Kind": {"Stale": 0}}]}),
            json!({"Rules": [{"Method": "a", "Kind": {"DelayAnswer": {"Millis": u64::MAX, "Jitter": 1}}}]}),
        ] {
            assert!(Faults::default().set(serde_json::from_value(bad.clone()).unwrap()).is_err(), "{bad}");
        }
    }
}
