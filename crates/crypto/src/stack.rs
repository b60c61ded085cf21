//! Wiping what work with keys leaves on the stack.

use core::hint::black_box;

/// How far down the stack such work reaches, at most, in bytes. Built without optimisation, the
/// expansion of a wrapping key needs a quarter of it.
const DEPTH: usize = 128 << 10;

/// Does work with keys, then wipes the stack that it used.
///
/// A type can wipe what it holds, not what was left where a value passed through: libraries and the
/// compiler copy keys to the stack when they expand, move and return them, and a thread may live
/// for long after. Registers are not wiped, nor anything when `work` panics.
pub fn leaving_no_trace<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    wipe_below();
    done
}

#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_below() {
    black_box(&mut [0_u8; DEPTH]);
}
