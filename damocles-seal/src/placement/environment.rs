//! What a child's environment says about its place, and which settings need a feature of the build.

use super::{PlacementError, PlacementErrorKind};
use crate::pool::SlotSpec;
use damocles_core::{CpuSet, Error, GpuId};
use std::{collections::BTreeMap, fmt};

const CUDA_VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
const NVIDIA_VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
const NO_GPU: &str = "BELLMAN_NO_GPU";
const MULTICORE_SDR: &str = "FIL_PROOFS_USE_MULTICORE_SDR";
const PRODUCERS: &str = "FIL_PROOFS_MULTICORE_SDR_PRODUCERS";
const STRIDE: &str = "FIL_PROOFS_MULTICORE_SDR_PRODUCER_STRIDE";
/// hwloc's own switch: with `0` its functions that bind do nothing and say that they did.
const HWLOC_BINDS: &str = "HWLOC_THISSYSTEM";
/// How many nodes the proofs library prepares ahead of the one that is hashed, and how many one producer takes at a time,
/// unless its settings say otherwise.
const LOOKAHEAD: usize = 800;
const DEFAULT_STRIDE: usize = 128;
const GPU_BUILDERS: [&str; 2] = ["FIL_PROOFS_USE_GPU_COLUMN_BUILDER", "FIL_PROOFS_USE_GPU_TREE_BUILDER"];

/// The variables that show a child these GPUs and no other, by the identifiers that the driver prints. Empty without
/// GPUs: a slot that names none is not bound, and sees what its environment lets it see. To keep a slot off all GPUs,
/// its `envs` say `BELLMAN_NO_GPU = "1"`.
pub fn gpu_env(gpus: &[GpuId]) -> BTreeMap<String, String> {
    if gpus.is_empty() {
        return BTreeMap::new();
    }
    let list = gpus.iter().map(|gpu| gpu.0.as_str()).collect::<Vec<_>>().join(",");
    [(CUDA_VISIBLE.to_owned(), list.clone()), (NVIDIA_VISIBLE.to_owned(), list)].into()
}

/// What an environment says against the GPUs that a slot names: variables with their values. One that names the very
/// same, in the same order, says nothing else. None without GPUs.
pub fn against_gpus<'e>(envs: &'e BTreeMap<String, String>, gpus: &[&str]) -> Vec<(&'e str, &'e str)> {
    let against = |name: &str, value: &str| match name {
        CUDA_VISIBLE | NVIDIA_VISIBLE => !value.split(',').map(str::trim).eq(gpus.iter().copied()),
        NO_GPU => is_on(value),
        _ => false,
    };
    let said = envs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    said.filter(|(name, value)| !gpus.is_empty() && against(name, value)).collect()
}

/// The variables of a slot's place; those without a value are removed. An inherited word against GPUs is for the whole
/// program; one in the slot's own settings contradicts them.
pub(super) fn slot_env(slot: &SlotSpec) -> Result<Vec<(String, Option<String>)>, PlacementError> {
    let env = gpu_env(&slot.placement.gpus);
    if env.is_empty() {
        return Ok(Vec::new());
    }
    let contradiction = |name: &str, value: &str| {
        Error::new(PlacementErrorKind::Settings, "bind slot")
            .with("slot", &slot.name)
            .with("variable", name)
            .with("value", value)
            .hint_with("the slot names its GPUs: remove the variable from its envs, or the GPUs from the slot")
    };
    let gpus: Vec<&str> = slot.placement.gpus.iter().map(|gpu| gpu.0.as_str()).collect();
    if let Some((name, value)) = against_gpus(&slot.command.envs, &gpus).into_iter().next() {
        return Err(contradiction(name, value));
    }
    let removed = (!slot.command.envs.contains_key(NO_GPU)).then(|| (NO_GPU.to_owned(), None));
    Ok(env.into_iter().map(|(name, value)| (name, Some(value))).chain(removed).collect())
}

/// Why multicore SDR does not fit a slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MulticoreMisfit {
    /// The CPUs are not all behind one L3 cache.
    #[error("CPUs {cpus} are not all behind one L3 cache: their producers would wait for each other")]
    NotOneCache {
        /// The slot's.
        cpus: CpuSet,
    },
    /// One core cannot both hash and fetch.
    #[error("CPUs {cpus} are one core: multicore SDR needs at least two")]
    OneCore {
        /// The slot's.
        cpus: CpuSet,
    },
}

/// The environment with which a PC1 child uses all its cores for one sector: one hashes, the others fetch parents.
///
/// `l3` are the CPUs behind each L3 cache; `cores` the CPUs of each core, more than one with SMT.
///
/// The library would also bind each of its threads to a core, by hwloc's count of cores, which it compares with the
/// kernel's numbers of CPUs (`stacked/vanilla/cores.rs` of storage-proofs-porep 19). The two agree only for CPUs from 0 on
/// that are numbered core by core. In a cpuset that begins elsewhere no core passes, and nothing is bound; with affinity
/// alone a thread could be bound to a core of another slot, which the reading back would end. So that binding is switched
/// off: the slot has as many cores as threads, and the kernel gives each busy one its own.
///
/// All producers are to find work within what is prepared ahead, so that many of them take less at a time.
///
/// # Errors
///
/// The slot's CPUs are not cores of one cache.
pub fn multicore_sdr_env(
    cpus: &CpuSet,
    l3: &[CpuSet],
    cores: &[CpuSet],
) -> Result<BTreeMap<String, String>, MulticoreMisfit> {
    let is_in = |cpu: u16, set: &CpuSet| set.iter().any(|member| member == cpu);
    if !l3.iter().any(|group| cpus.iter().all(|cpu| is_in(cpu, group))) {
        return Err(MulticoreMisfit::NotOneCache { cpus: cpus.clone() });
    }
    let producers = cores.iter().filter(|core| core.overlaps(cpus)).count().saturating_sub(1);
    if producers == 0 {
        return Err(MulticoreMisfit::OneCore { cpus: cpus.clone() });
    }
    let stride = (LOOKAHEAD / producers).clamp(1, DEFAULT_STRIDE);
    let env = [(MULTICORE_SDR, 1), (PRODUCERS, producers), (STRIDE, stride), (HWLOC_BINDS, 0)];
    Ok(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect())
}

/// A feature that this program was built with or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildFeature {
    /// `multicore-sdr`.
    MulticoreSdr,
    /// `cuda` or `opencl`.
    Gpu,
}

impl BuildFeature {
    /// Whether this program has it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::MulticoreSdr => cfg!(feature = "multicore-sdr"),
            Self::Gpu => cfg!(any(feature = "cuda", feature = "opencl")),
        }
    }
}

impl fmt::Display for BuildFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MulticoreSdr => "multicore-sdr",
            Self::Gpu => "cuda` or `opencl",
        })
    }
}

/// A setting that this program cannot honour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} needs the feature `{feature}`, without which this program was built")]
pub struct MissingFeature {
    /// The setting, e.g. a variable.
    pub setting: String,
    /// What is missing.
    pub feature: BuildFeature,
}

impl MissingFeature {
    /// What an operator can do.
    pub fn hint(&self) -> String {
        let feature = match self.feature {
            BuildFeature::MulticoreSdr => "multicore-sdr (it needs libhwloc when it is built)",
            BuildFeature::Gpu => "cuda or opencl",
        };
        format!("remove {}, give the slot a `bin` that can, or install a build with {feature}", self.setting)
    }
}

/// The variable that asks for multicore SDR, if one does.
pub fn needs_multicore_sdr(envs: &BTreeMap<String, String>) -> Option<&str> {
    envs.get_key_value(MULTICORE_SDR).filter(|(_, value)| is_on(value)).map(|(name, _)| name.as_str())
}

/// What a slot that runs this very program asks for and this build does not have.
pub fn missing_features(envs: &BTreeMap<String, String>, gpus: &[GpuId]) -> Vec<MissingFeature> {
    let mut asked = Vec::new();
    if let Some(name) = needs_multicore_sdr(envs) {
        asked.push((name.to_owned(), BuildFeature::MulticoreSdr));
    }
    let on = |name: &&str| envs.get(*name).is_some_and(|value| is_on(value));
    asked.extend(GPU_BUILDERS.iter().filter(|name| on(name)).map(|name| ((*name).to_owned(), BuildFeature::Gpu)));
    if let Some(gpu) = gpus.first() {
        asked.push((format!("GPU {gpu}"), BuildFeature::Gpu));
    }
    let missing = asked.into_iter().filter(|(_, feature)| !feature.is_built_in());
    missing.map(|(setting, feature)| MissingFeature { setting, feature }).collect()
}

/// As the proofs library reads its settings.
fn is_on(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::CommandSpec;
    use damocles_core::pool::TaskKind;

    fn sets(texts: &[&str]) -> Vec<CpuSet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn one_core_hashes_and_the_others_fetch() {
        let l3 = sets(&["0-3,8-11", "4-7,12-15"]);
        let smt = sets(&["0,8", "1,9", "2,10", "3,11", "4,12", "5,13", "6,14", "7,15"]);
        let single: Vec<CpuSet> = (0..16).map(|cpu: u16| cpu.to_string().parse().unwrap()).collect();
        let producers = |cpus: &str, cores: &[CpuSet]| {
            multicore_sdr_env(&cpus.parse().unwrap(), &l3, cores).map(|env| env[PRODUCERS].clone())
        };
        assert_eq!(producers("0-3", &smt), Ok("3".to_owned()));
        assert_eq!(producers("4-7,12-15", &smt), Ok("3".to_owned()), "siblings are one core");
        assert_eq!(producers("0-3,8-11", &single), Ok("7".to_owned()));
        let env = |cpus: &str| {
            let env = multicore_sdr_env(&cpus.parse().unwrap(), &sets(&["0-15"]), &single).unwrap();
            env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        // From CPU 0 on or not: nothing is bound by the library, whose core numbers are not the kernel's.
        let four = "FIL_PROOFS_MULTICORE_SDR_PRODUCERS=3 FIL_PROOFS_MULTICORE_SDR_PRODUCER_STRIDE=128 \
                    FIL_PROOFS_USE_MULTICORE_SDR=1 HWLOC_THISSYSTEM=0";
        assert_eq!([env("0-3"), env("8-11")], [four, four]);
        assert!(
            env("0-15").contains("PRODUCERS=15 FIL_PROOFS_MULTICORE_SDR_PRODUCER_STRIDE=53 "),
            "15 times 53 is ahead"
        );
        assert!(matches!(producers("3-4", &smt), Err(MulticoreMisfit::NotOneCache { .. })));
        assert!(matches!(producers("0,8", &smt), Err(MulticoreMisfit::OneCore { .. })));
    }

    #[test]
    fn a_slot_that_names_gpus_sees_these() {
        let mut slot = SlotSpec::new("c2-0", vec![TaskKind::new("c2")], CommandSpec::new("x", [""; 0]));
        assert_eq!(slot_env(&slot).unwrap(), []);
        slot.placement.gpus = vec![GpuId("GPU-a".into()), GpuId("GPU-b".into())];
        let env = slot_env(&slot).unwrap();
        assert!(env.contains(&(CUDA_VISIBLE.to_owned(), Some("GPU-a,GPU-b".to_owned()))));
        assert!(env.contains(&(NO_GPU.to_owned(), None)), "an inherited word against GPUs is not for this slot");
        slot.command.envs.insert(NO_GPU.to_owned(), "1".to_owned());
        assert_eq!(slot_env(&slot).unwrap_err().kind(), PlacementErrorKind::Settings);
    }

    #[test]
    fn a_variable_may_say_what_the_slot_says() {
        let against = |envs: &[(&str, &str)], gpus: &[&str]| {
            let envs = envs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            against_gpus(&envs, gpus).into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(against(&[(CUDA_VISIBLE, "GPU-a, 1"), (NO_GPU, "0")], &["GPU-a", "1"]), [""; 0]);
        assert_eq!(against(&[(CUDA_VISIBLE, "1,GPU-a")], &["GPU-a", "1"]), [CUDA_VISIBLE]);
        assert_eq!(against(&[(NVIDIA_VISIBLE, "all"), (NO_GPU, "1")], &["1"]), [NO_GPU, NVIDIA_VISIBLE]);
        assert_eq!(against(&[(CUDA_VISIBLE, "1"), (NO_GPU, "1")], &[]), [""; 0], "nothing is named");
    }

    #[test]
    fn settings_that_this_build_cannot_honour_are_named() {
        let envs = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        assert_eq!(needs_multicore_sdr(&envs(MULTICORE_SDR, "0")), None);
        let missing = missing_features(&envs(MULTICORE_SDR, "true"), &[GpuId("GPU-a".into())]);
        let expected = [BuildFeature::MulticoreSdr, BuildFeature::Gpu].into_iter().filter(|f| !f.is_built_in());
        assert!(missing.iter().map(|m| m.feature).eq(expected));
        assert!(missing.iter().all(|m| m.hint().starts_with("remove ")));
    }
}
