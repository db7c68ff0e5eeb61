//! Memory that direct I/O accepts.
//!
//! Direct I/O wants the address, the offset and the length to be multiples of the device's logical block size,
//! which is 512 or 4096 bytes on every device that we run on; [`ALIGNMENT`] satisfies both.
//!
//! Invariant: `a_buffer_starts_at_an_aligned_address`.

use std::ops::{Deref, DerefMut};

/// What offsets, lengths and addresses of direct I/O are multiples of, in bytes.
pub const ALIGNMENT: usize = 4096;

/// Zeroed memory that starts at a multiple of [`ALIGNMENT`]. Meant to be reused: making one costs page faults.
#[derive(Debug)]
pub struct AlignedBuf {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        // Over-allocating by one alignment unit needs no allocator call by hand, so no unsafe code.
        let memory = vec![0; len + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        assert!(start < ALIGNMENT, "byte pointers can always be aligned");
        Self { memory, start, len }
    }

    /// Copies `bytes` into a new aligned buffer.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_starts_at_an_aligned_address() {
        for len in [0, 1, 511, 4096, 1 << 20] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(buf.len(), len);
        }
    }
}
