//! No bytes may make a decoder take more memory than they account for.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// How much a target may allocate at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heap {
    /// Whatever comes in.
    fixed: usize,
    /// For each byte that comes in.
    per_byte: usize,
}

/// A list of items of one byte each is the worst: an item takes some 60 bytes, and a list that grows
/// has room for twice what it holds, beside what it had before.
pub(crate) const OF_BYTES: Heap = Heap {
    fixed: 64 << 10,
    per_byte: 256,
};

/// What a parser of a text format keeps of each letter is its own affair.
pub(crate) const OF_TEXT: Heap = Heap {
    fixed: 256 << 10,
    per_byte: 1024,
};

/// The age format is read in buffers of a fixed size.
pub(crate) const OF_FILES: Heap = Heap {
    fixed: 1 << 20,
    per_byte: 64,
};

/// Where the input decides what happens among things that are there before it.
pub(crate) const OF_A_STAGE: Heap = Heap {
    fixed: 16 << 20,
    per_byte: 16 << 10,
};

impl Heap {
    /// Runs a target on so many bytes. Nothing else may run in the process.
    pub(crate) fn bounded(self, len: usize, run: impl FnOnce()) {
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        run();
        let taken = ALLOCATED.peak_usage().saturating_sub(before);
        let may = self.fixed + self.per_byte * len;
        assert!(
            taken <= may,
            "{len} bytes made it allocate {taken}, and {may} are allowed"
        );
    }
}
