//! Every method that is called: its request, its answer, and what is read out of the answer, pinned by a snapshot each.
//!
//! A snapshot says which parts of an answer may not be missing and which are read whatever they are, so that a node
//! whose API changed is noticed; what nodes of different makers leave out or write differently is read all the same.

mod answers;
mod drive;

use crate::setup::Home;
use answers::{CASES, Case};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

/// The places in a value, as JSON pointers; of a list, the first item stands for all.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                out.push(place.clone());
                places(inner, &place, out);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                let place = format!("{at}/0");
                out.push(place.clone());
                places(first, &place, out);
            }
        }
        _ => {}
    }
}

fn without(answer: &Value, place: &str) -> Option<Value> {
    let mut changed = answer.clone();
    let (parent, name) = place.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    changed.pointer_mut(parent)?.as_object_mut()?.remove(&name)?;
    Some(changed)
}

/// The answer with something of another type at a place.
fn mistyped(answer: &Value, place: &str) -> Value {
    let mut changed = answer.clone();
    let value = changed.pointer_mut(place).unwrap();
    *value = if value.is_boolean() { json!("x") } else { json!(true) };
    changed
}

fn describe(case: &Case, request: &Value) -> Value {
    let answer = (case.answer)();
    let read = (case.read)(answer.clone()).unwrap_or_else(|e| panic!("{} is not read: {e}", case.method));
    let mut all = Vec::new();
    places(&answer, "", &mut all);
    let needs = all.iter().filter(|place| without(&answer, place).is_some_and(|a| (case.read)(a).is_err()));
    let takes_anything = all.iter().filter(|place| (case.read)(mistyped(&answer, place)).is_ok());
    json!({
        "request": {"method": format!("Filecoin.{}", case.method), "params": request},
        "answer": answer,
        "read": if read == answer { json!("all of it") } else { read },
        "may not be missing": needs.collect::<Vec<_>>(),
        "may be anything": takes_anything.collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn requests_and_answers_are_those_that_were_recorded() {
    let home = Home::new();
    let requests = drive::all(&home).await;
    let unknown: Vec<_> = requests.keys().filter(|method| !CASES.iter().any(|c| c.method == **method)).collect();
    assert!(unknown.is_empty(), "called without a snapshot: {unknown:?}");
    for case in CASES {
        // What takes a whole life of a message to be asked is written down by hand.
        let request = match (case.request, requests.get(case.method)) {
            (Some(by_hand), _) => by_hand(),
            (None, Some(driven)) => driven.clone(),
            (None, None) => panic!("{} is not called any more", case.method),
        };
        let text = serde_json::to_string_pretty(&describe(case, &request)).unwrap();
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "snapshots"}, {
            insta::assert_snapshot!(case.method, text);
        });
    }
}

#[test]
fn null_and_wrong_types_are_no_answers() {
    for case in CASES {
        let nothing = (case.read)(Value::Null).is_ok();
        assert_eq!(nothing, case.null, "{} and null", case.method);
        for wrong in [json!({"x": 1}), json!("x y"), json!(1.5), json!([[["x"]]]), json!(-1)] {
            let is_ok = (case.read)(wrong.clone()).is_ok();
            let may = match case.method {
                "StateNetworkName" => wrong.is_string(),
                _ => false,
            };
            assert!(may || !is_ok, "{} takes {wrong}", case.method);
        }
    }
}

#[test]
fn what_lotus_venus_and_forest_write_differently_is_read() {
    for (method, variant) in answers::variants() {
        let case = CASES.iter().find(|c| c.method == method).unwrap();
        if let Err(e) = (case.read)(variant.clone()) {
            panic!("{method} does not read {variant}: {e}");
        }
    }
}

/// Texts in the source that are names of methods.
fn names_in(dir: &Path, out: &mut BTreeSet<String>) {
    const FAMILIES: [&str; 8] = ["Chain", "State", "Mpool", "GasEstimate", "Wallet", "Net", "Sync", "Miner"];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // The table of what is known of methods names more than are called.
        if path.is_dir() && !matches!(name.as_str(), "tests" | "testing" | "venus") {
            names_in(&path, out);
        } else if name.ends_with(".rs") && !matches!(name.as_str(), "method.rs" | "tests.rs" | "testing.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for literal in code.split('"').skip(1).step_by(2) {
                let literal = literal.strip_prefix("Filecoin.").unwrap_or(literal);
                let family = FAMILIES.iter().find_map(|family| literal.strip_prefix(family));
                let is_name = family.is_some_and(|rest| {
                    rest.starts_with(|c: char| c.is_ascii_uppercase())
                        && rest.chars().all(|c| c.is_ascii_alphanumeric())
                });
                if is_name || literal == "Version" {
                    out.insert(literal.to_owned());
                }
            }
        }
    }
}

#[test]
fn no_method_is_called_without_a_snapshot() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut named = BTreeSet::new();
    for part in ["client", "rpc", "heads", "outbox", "signer"] {
        names_in(&source.join(part), &mut named);
    }
    assert!(named.len() > 30 && named.contains("ChainHead") && named.contains("MpoolPush"), "{named:?}");
    let known: BTreeSet<String> = CASES.iter().map(|case| case.method.to_owned()).collect();
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "called without a snapshot: {missing:?}; add a case to tests/client/methods/answers.rs"
    );
}
