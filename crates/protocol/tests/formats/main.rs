//! The formats of what travels, through the public API.
#![cfg(test)]

mod asking;
mod bundle;
mod checkpoint;
mod device;
mod envelope;
mod fallback;
mod frame;
mod key_nodes;
mod pairing;
mod session;
mod spec_pages;
mod support;
mod ticket;
