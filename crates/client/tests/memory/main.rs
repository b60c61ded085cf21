//! No secret is left in memory, in what is printed, or on disk.
//!
//! Each test runs a part of itself in a child process, hands it secrets that were drawn a moment
//! ago, and searches the memory of the stopped child and all that it printed. What the product
//! draws by itself (keys, seeds, roots) is learned from the home and the bus, and searched for too.
#![cfg(test)]
#![cfg(target_os = "linux")]

mod child;
mod keys;
mod leaks;
mod life;
mod texts;
mod types;
