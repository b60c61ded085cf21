//! Users, devices and a bus in memory: who opens what, and what is told about the rest.
#![cfg(test)]

mod asking;
mod batches;
mod carried;
mod devices;
mod fallback;
mod faults;
mod forged;
mod handouts;
mod intervals;
mod lists;
mod model;
mod newcomer;
mod order;
mod parking;
mod releasing;
mod rig;
mod rights;
mod rng;
mod tamper;
mod topics;
mod withheld;
