//! Has the heap of a program give large buffers back to the system.
//!
//! Batches of messages are buffers of some MiB. The C library of GNU takes the first of them from the
//! system and gives it back; but having seen one freed, it keeps the next ones of that size in its heap, where
//! what is smaller comes to lie between them, and a program that follows a busy stream grows by half.

/// From this size on a buffer is the system's again as soon as it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 256 << 10;

/// Gives large buffers back as soon as they are freed, from now on. Call it first of all. Elsewhere than
/// with the C library of GNU it does nothing.
pub fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no other way to say it")]
        // SAFETY: it takes two numbers, and does no more than set one of the heap's under its lock.
        let _is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
