//! The formats of what travels, through the public API.
#![cfg(test)]

mod asking;
mod bundle;
mod device;
mod envelope;
mod frame;
mod session;
mod spec_pages;
mod support;
mod ticket;
