use super::*;
use crate::pool::{CommandSpec, LocalPool, PoolSpec, SlotSpec};
use damocles_core::{ActorId, SectorNumber, pool::Task};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(7));
const SIZE: SectorSize = SectorSize::KiB2;

fn wanted(location: &Path, name: &str) -> Wanted {
    let attach =
        Attach { location: location.to_owned(), name: Some(name.to_owned()), read_only: false, scanned: false };
    Wanted { attach, prober: None, bytes_per_second: None }
}

fn store_at(dir: &Path, name: &str) -> PathBuf {
    let location = dir.join(name);
    PersistStore::init(&location, Some(name)).unwrap();
    location
}

fn stores(wanted: Vec<Wanted>, settings: StoreSettings) -> PersistStores {
    PersistStores::wanted(wanted, settings).unwrap()
}

async fn survey(stores: &PersistStores, bytes: u64) -> (Vec<String>, Vec<String>) {
    let survey = stores.survey(SECTOR, SIZE, bytes, &Context::detached()).await;
    (survey.suitable.iter().map(|f| f.store.name().to_owned()).collect(), survey.unsuitable)
}

/// A mount that is undone at the end, if this process may mount.
struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&str], at: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(args).arg(at).output();
        if mounted.as_ref().is_ok_and(|m| m.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: nothing can be mounted here: {mounted:?}");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_store_is_attached_when_its_disk_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mount) = (store_at(dir.path(), "disk"), dir.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    let known = KnownStores::open([dir.path().join("known.json")]).unwrap();
    let stores = stores(vec![wanted(&mount, "late")], StoreSettings { known, ..StoreSettings::default() });
    let keeper = stores.clone();
    let keeping = tokio::spawn(async move { keeper.keep_attached(&Context::detached()).await });
    let until = |attached: bool| {
        let stores = stores.clone();
        async move {
            // Far less than the time after which it would look without being told.
            let limit = tokio::time::timeout(LOOK_AGAIN / 3, async {
                while stores.status()[0].attached != attached || (!attached && stores.status()[0].reason.is_none()) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            limit.await.unwrap();
        }
    };
    until(false).await;
    assert!(stores.any_writable() && stores.get("late").is_none());
    let (_, unsuitable) = survey(&stores, 1).await;
    assert!(unsuitable[0].contains("late") && unsuitable[0].contains("no store"), "{unsuitable:?}");
    let Some(mounted) = Mounted::new(&["--bind", disk.to_str().unwrap()], &mount) else { return };
    until(true).await;
    assert_eq!(survey(&stores, 1).await.0, ["late"]);
    drop(mounted);
    // The mount point is empty again: it was that store, and is not filled.
    let (suitable, unsuitable) = survey(&stores, 1).await;
    assert!(suitable.is_empty() && unsuitable[0].contains("not mounted"), "{unsuitable:?}");
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0);
    keeping.abort();
}

#[tokio::test]
async fn a_store_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let location = dir.path().join("old");
    std::fs::create_dir_all(location.join("sealed")).unwrap();
    let start = || {
        let known = KnownStores::open([dir.path().join("known.json")]).unwrap();
        stores(vec![wanted(&location, "old")], StoreSettings { known, ..StoreSettings::default() })
    };
    assert_eq!(survey(&start(), 1).await.0, ["old"]);
    let own = location.join(".damocles-store");
    let identity = std::fs::read(&own).unwrap();
    std::fs::remove_file(&own).unwrap();
    // The same directory without its identity may be that of the disk below.
    let later = start();
    let (suitable, unsuitable) = survey(&later, 1).await;
    assert!(suitable.is_empty() && unsuitable[0].contains("not mounted"), "{unsuitable:?}");
    assert!(!own.exists() && !later.status()[0].attached);
    assert!(later.status()[0].reason.as_ref().unwrap().contains("not mounted"));
    std::fs::write(&own, r#"{"id":"another"}"#).unwrap();
    let replaced = start().look("old", None, &Context::detached()).await.unwrap_err();
    assert_eq!(replaced.kind(), StoreErrorKind::Replaced);
    assert!(replaced.hint().unwrap().contains("known.json"), "{:?}", replaced.hint());
    assert!(survey(&start(), 1).await.1[0].contains("another store is in its place"));
    std::fs::write(&own, identity).unwrap();
    assert_eq!(survey(&later, 1).await.0, ["old"]);
}

/// A pool whose child never says a word, like one that waits for a disk.
fn hung() -> Arc<dyn ProcessorPool> {
    let slot = SlotSpec::new("probe-0", vec![Probe::KIND], CommandSpec::new("sleep", ["600"]));
    Arc::new(LocalPool::new(PoolSpec::new(vec![slot])).unwrap())
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (store_at(dir.path(), "good"), store_at(dir.path(), "bad"));
    let silent = Wanted { prober: Some(hung()), ..wanted(&bad, "bad") };
    let settings = StoreSettings { answer_limit: Duration::from_millis(500), ..StoreSettings::default() };
    let stores = stores(vec![silent, wanted(&good, "good")], settings);
    // Twice: what is left of the first look is in nobody's way.
    for _ in 0..2 {
        let (suitable, unsuitable) = survey(&stores, 1).await;
        assert_eq!(suitable, ["good"]);
        assert!(unsuitable[0].contains("`bad`") && unsuitable[0].contains("did not answer"), "{unsuitable:?}");
        stores.sweep_but("good", SECTOR, SIZE, &Context::detached()).await;
    }
    let cx = Context::detached();
    assert_eq!(stores.look("bad", None, &cx).await.unwrap_err().kind(), StoreErrorKind::Silent);
    assert_eq!(stores.look("none", None, &cx).await.unwrap_err().kind(), StoreErrorKind::Missing);
}

#[tokio::test]
async fn full_and_read_only_stores_are_left_out_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &mount) else { return };
    PersistStore::init(&mount, Some("small")).unwrap();
    let stores = stores(vec![wanted(&mount, "small")], StoreSettings::default());
    assert_eq!(survey(&stores, 1 << 19).await.0, ["small"]);
    let (suitable, unsuitable) = survey(&stores, 1 << 21).await;
    assert!(suitable.is_empty() && unsuitable[0].contains("full"), "{unsuitable:?}");
    // What is there of the same replica is not needed again.
    let store = stores.get("small").unwrap();
    std::fs::write(store.sealed(SECTOR).with_file_name(".s-t01000-7.00ff.damocles-tmp"), vec![1; 3 << 18]).unwrap();
    assert_eq!(survey(&stores, (1 << 20) - (1 << 16)).await.0, ["small"]);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&mount).status().unwrap();
    assert!(remounted.success());
    let (suitable, unsuitable) = survey(&stores, 1).await;
    assert!(suitable.is_empty() && unsuitable[0].contains("read-only"), "{unsuitable:?}");
}

#[tokio::test]
async fn what_is_set_aside_or_of_the_same_name_or_no_store_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let one = store_at(dir.path(), "one");
    let scanned = |location: PathBuf| {
        let attach = Attach { location, name: None, read_only: false, scanned: true };
        Wanted { attach, prober: None, bytes_per_second: None }
    };
    let twin = dir.path().join("twin");
    PersistStore::init(&twin, Some("one")).unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let stores = stores(vec![wanted(&one, "one"), scanned(empty.clone())], StoreSettings::default());
    assert_eq!(survey(&stores, 1).await, (vec!["one".to_owned()], vec![]));
    assert_eq!(stores.status().len(), 1, "a directory that is no store is passed over");
    stores.set_aside("one", "no space was left");
    assert_eq!(stores.status()[0].reason.as_deref(), Some("no space was left"));
    assert_eq!(survey(&stores, 1).await.0, ["one"], "it is all there is");
    // It becomes one, of a name that is taken, and then of its own.
    std::fs::remove_dir(&empty).unwrap();
    std::fs::rename(&twin, &empty).unwrap();
    survey(&stores, 1).await;
    assert_eq!(stores.iter().count(), 1);
    std::fs::write(empty.join("sectorstore.json"), r#"{"ID":"two","Name":"two"}"#).unwrap();
    let (suitable, unsuitable) = survey(&stores, 1).await;
    assert_eq!(suitable, ["two"]);
    assert!(unsuitable[0].contains("`one`") && unsuitable[0].contains("no space was left"), "{unsuitable:?}");
    assert!(PersistStores::wanted(vec![wanted(&one, "x"), wanted(&twin, "x")], StoreSettings::default()).is_err());
    let store = PersistStore::open(&one, None, false).unwrap();
    assert!(PersistStores::new(vec![store.clone(), store]).is_err());
}
