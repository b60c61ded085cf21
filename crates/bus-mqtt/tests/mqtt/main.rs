//! An MQTT bus on the real broker, which each test starts for itself.
#![cfg(test)]

mod breaks;
mod check;
mod conformance;
mod control;
mod homes;
mod own;
mod past;
mod processes;
mod rig;
mod rights;
mod secrecy;
mod strangers;
mod users;
