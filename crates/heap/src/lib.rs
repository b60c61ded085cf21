//! Has all threads of a program share one heap.
//!
//! The C library of GNU gives threads heaps of their own, and what a thread takes of its heap goes back there,
//! whoever frees it. Batches of messages are some MiB, taken now by one thread and now by another, so that each
//! heap grows to what all of them need, and none gives it back.

/// Has the threads that are to be started share the heap of the first. Call it before all else. Elsewhere than with the C
/// library of GNU it does nothing.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no other way to say it")]
        // SAFETY: it takes two numbers, and does no more than set one of the heap's under its lock.
        let _is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
