//! A NATS bus on the real server, which each test starts for itself.
#![cfg(test)]

mod breaks;
mod check;
mod cluster;
mod conformance;
mod following;
mod rig;
mod secrecy;
mod strangers;
