//! Files in memory.

use std::{fs::File, io, os::fd::AsRawFd, ptr::NonNull, slice};

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Mapped {
    /// Maps a whole file. Whoever cuts the file while it is mapped kills the process that reads it.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses the place; the descriptor is open for the call, and the mapping outlives it.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, len })
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped for reading until this is dropped.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}
