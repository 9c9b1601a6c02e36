//! Files that no sane kernel shows.

use super::fake::Fake;
use damocles_core::SectorSize;
use damocles_seal::machine::{
    Machine, Roots,
    figures::Figures,
    plan::{PlanOptions, plan},
};
use proptest::prelude::*;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "",
        "-1",
        "0-65535",
        "4294967296",
        "99999999999999999999",
        "0-",
        ",",
        "a\0b",
        "7-3",
        "MemTotal: x kB",
        "MemTotal: 18446744073709551615 kB",
        "1 2 3:4 / / rw - cgroup2 x rw",
        "1 1 8:1 / \\777 rw - nfs x rw",
        "0::/../..",
    ]);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..64), words.prop_map(|word| word.as_bytes().to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nothing_panics_and_what_is_read_is_a_record(
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), contents()), 1..12), multicore_sdr: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        Fake { smt: true, gpus: 1, ..Fake::new(2, 4, 2) }.write(dir.path());
        let mut all = Vec::new();
        files(dir.path(), &mut all);
        for (index, content) in spoilt {
            fs::write(index.get(&all), content).unwrap();
        }
        let machine = Machine::read(&Roots::below(dir.path()));
        let json = serde_json::to_string(&machine).unwrap();
        prop_assert_eq!(&Machine::from_json(&json).unwrap(), &machine);
        let options = PlanOptions { multicore_sdr, gpus: true, post_gpus: 0, reserve: None };
        for size in [SectorSize::KiB2, SectorSize::GiB32] {
            if let Ok(plan) = plan(&machine, &Figures::of(size), &options) {
                prop_assert_eq!(damocles_seal::machine::legal::check_slots(&machine, &plan.claims().slots), []);
            }
        }
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let dir = tempfile::tempdir().unwrap();
    Fake::new(1, 2, 2).write(dir.path());
    fs::write(dir.path().join("sys/devices/system/cpu/cpu0/cache/index3/size"), "lots").unwrap();
    let pipe = dir.path().join("proc/sys/kernel/hostname");
    fs::remove_file(&pipe).unwrap();
    fs::create_dir(&pipe).unwrap();
    let machine = Machine::read(&Roots::below(dir.path()));
    let said: Vec<_> = machine.problems.iter().map(|p| format!("{} {}", p.path.display(), p.what)).collect();
    let said = said.join("\n").replace(dir.path().to_str().unwrap(), "DIR");
    assert!(said.contains("cpu0/cache/index3/size says \"lots\", which is not understood"), "{said}");
    assert!(said.contains("DIR/proc/sys/kernel/hostname is no file"), "{said}");
    assert_eq!((machine.cpu.cores.len(), machine.hostname), (2, None));
}

#[test]
fn an_empty_directory_is_an_empty_record() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Machine::read(&Roots::below(dir.path())), Machine::default());
}

#[test]
fn a_library_that_is_not_there_means_no_gpus_and_one_that_is_none_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let with = |nvml: PathBuf| Machine::read(&Roots { nvml: Some(nvml), ..Roots::below(dir.path()) });
    assert_eq!(with("libdamocles-of-nobody.so.1".into()), Machine::default());
    let file = dir.path().join("libnvidia-ml.so.1");
    fs::write(&file, "rubbish").unwrap();
    let machine = with(file.clone());
    assert_eq!((machine.gpus.len(), machine.problems.len()), (0, 1));
    assert_eq!(machine.problems[0].path, file);
}

/// Loaded and called for real: only what it says is made up.
#[test]
fn cards_are_asked_of_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/fake_nvml.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(source).status();
    // The proofs library needs a C compiler too: a machine that builds this has one.
    assert!(made.unwrap().success());
    let node = dir.path().join("sys/bus/pci/devices/0000:c1:00.0/numa_node");
    fs::create_dir_all(node.parent().unwrap()).unwrap();
    fs::write(node, "1\n").unwrap();
    let machine = Machine::read(&Roots { nvml: Some(library.clone()), ..Roots::below(dir.path()) });
    assert_eq!(machine.problems.len(), 1, "{:?}", machine.problems);
    assert!(machine.problems[0].path == library && machine.problems[0].what.starts_with("GPU 1: "));
    let card = json!({
        "index": 0,
        "uuid": "GPU-8f6c1a2b-0000-1111-2222-333344445555",
        "name": "Fake RTX 3080",
        "memory": "10GiB",
        "bus_id": "00000000:C1:00.0",
        "node": 1,
    });
    assert_eq!(serde_json::to_value(&machine.gpus).unwrap(), json!([card]));
}
