//! The access log, through the public API: `spec/access-log.md`.
#![cfg(test)]

mod approvals;
mod devices;
mod naive;
mod orders;
mod place;
mod publishing;
mod removals;
mod rights;
mod spec_page;
mod world;
