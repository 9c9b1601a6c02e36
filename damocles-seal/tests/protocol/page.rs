//! The page for those who write a processor: what it shows is what is spoken.

use crate::runner::{Case, cases};
use damocles_core::pool::Task;
use damocles_seal::{
    pool::wire::{FileRef, FromChild, ToChild},
    task::{C2, C2Output},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

const PAGE: &str = include_str!("../../../docs/processor-protocol.md");

pub(crate) fn all() -> Vec<Case> {
    cases![every_frame_on_the_page_is_one, the_file_on_the_page_is_one].into()
}

/// The examples that begin so.
fn examples(start: &str) -> Vec<&'static str> {
    PAGE.lines().map(str::trim).filter(|line| line.starts_with(start)).collect()
}

/// Reads an example, which is written here as it stands there.
fn read<T: DeserializeOwned + Serialize + Debug>(example: &str) -> T {
    let frame: T = serde_json::from_str(example).unwrap_or_else(|e| panic!("{example}: {e}"));
    assert_eq!(serde_json::to_string(&frame).unwrap(), example);
    frame
}

async fn every_frame_on_the_page_is_one() {
    let (mut asked, mut answered) = (None, None);
    for example in examples("{\"frame\":\"") {
        let name = example.split('"').nth(3).unwrap();
        if ["hello", "ping", "task", "cancel", "shutdown"].contains(&name) {
            if let ToChild::Task { id, kind, payload, .. } = read(example) {
                assert_eq!(kind, C2::KIND);
                asked = Some((id, serde_json::from_str::<C2>(payload.get()).unwrap()));
            }
        } else if let FromChild::Done { id, output, .. } = read(example) {
            answered = Some((id, serde_json::from_str::<C2Output>(output.get()).unwrap()));
        }
    }
    let ((asked, _), (answered, _)) = (asked.expect("a task"), answered.expect("its answer"));
    assert_eq!(asked, answered);
    assert!(PAGE.contains(&format!("`\"{asked}\"`")), "the page says what an id is, by the same example");
}

async fn the_file_on_the_page_is_one() {
    let [example] = examples("{\"name\":")[..] else { panic!("one file") };
    let file: FileRef = read(example);
    assert!(hex::decode(&file.sha256).unwrap().len() == 32 && file.len > 8 << 20, "{file:?}");
}
