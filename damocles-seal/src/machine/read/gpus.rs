//! GPUs, as NVIDIA's management library tells. It comes with the driver and is loaded when it is needed: a machine without a driver
//! has no GPUs, and that is no problem.

use super::{Roots, disks, files::Files};
use crate::machine::Gpu;
use damocles_core::{ByteSize, GpuId};
use nvml_wrapper::{Device, Nvml, error::NvmlError};
use std::path::Path;

pub(super) fn read(roots: &Roots, files: &mut Files) -> Vec<Gpu> {
    let Some(library) = &roots.nvml else { return Vec::new() };
    let nvml = match Nvml::builder().lib_path(library.as_os_str()).init() {
        Ok(nvml) => nvml,
        Err(e) => {
            if !is_absent(&e) {
                files.problem(library, e);
            }
            return Vec::new();
        }
    };
    let count = nvml.device_count().unwrap_or_else(|e| {
        files.problem(library, format_args!("the number of GPUs: {e}"));
        0
    });
    (0..count).filter_map(|index| gpu(&nvml, index, roots, library, files)).collect()
}

/// The dynamic linker tells in words only that a library is not there.
fn is_absent(e: &NvmlError) -> bool {
    matches!(e, NvmlError::LibloadingError(e) if e.to_string().contains("No such file or directory"))
}

fn gpu(nvml: &Nvml, index: u32, roots: &Roots, library: &Path, files: &mut Files) -> Option<Gpu> {
    let known = nvml.device_by_index(index).and_then(|device| Ok((device.uuid()?, device)));
    let (uuid, device) = match known {
        Ok(known) => known,
        Err(e) => {
            files.problem(library, format_args!("GPU {index}: {e}"));
            return None;
        }
    };
    let mut fact = Fact { device: &device, index, library, files };
    let name = fact.of("name", Device::name);
    let memory = fact.of("memory", Device::memory_info).map(|memory| ByteSize(memory.total));
    let bus_id = fact.of("place on the bus", Device::pci_info).map(|pci| pci.bus_id);
    let place = bus_id.as_deref().and_then(|bus_id| disks::pci(roots, bus_id));
    let node =
        place.and_then(|place| files.value::<i32>(&place.join("numa_node"))).and_then(|node| node.try_into().ok());
    Some(Gpu { index, uuid: GpuId(uuid), name, memory, bus_id, node })
}

/// Asks for single facts of a GPU.
struct Fact<'a, 'n> {
    device: &'a Device<'n>,
    index: u32,
    library: &'a Path,
    files: &'a mut Files,
}

impl<'n> Fact<'_, 'n> {
    fn of<T>(&mut self, what: &str, ask: impl Fn(&Device<'n>) -> Result<T, NvmlError>) -> Option<T> {
        match ask(self.device) {
            Ok(fact) => Some(fact),
            Err(e) => {
                self.files.problem(self.library, format_args!("GPU {}: {what}: {e}", self.index));
                None
            }
        }
    }
}
