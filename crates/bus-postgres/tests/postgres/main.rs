//! A PostgreSQL bus on the real server, which each test starts for itself.
#![cfg(test)]

mod bounds;
mod breaks;
mod check;
mod conformance;
mod hints;
mod pooled;
mod rig;
mod secrecy;
mod strangers;
mod takeover;
mod turns;
