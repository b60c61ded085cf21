//! The primitives that come in more than one implementation, chosen by target alone.
//!
//! A backend offers `KeyPair` (`from_seed`, `public`, `sign`), `verify`, `seal_in_place` and
//! `open_in_place`, and nothing more. Checks that all backends must agree on stand above it. Tests
//! build every backend that builds for their target, and compare.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod native;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use native::{KeyPair, open_in_place, seal_in_place, verify};

#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod portable;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use portable::{KeyPair, open_in_place, seal_in_place, verify};

#[cfg(test)]
mod agreement;
#[cfg(test)]
pub(crate) use agreement::{BACKENDS, add_order, encodings_of_small_order};
