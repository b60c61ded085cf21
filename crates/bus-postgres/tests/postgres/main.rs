//! A PostgreSQL bus on the real server, which each test starts for itself.
#![cfg(test)]

mod bounds;
mod breaks;
mod check;
mod conformance;
mod hints;
mod rig;
mod secrecy;
mod strangers;
