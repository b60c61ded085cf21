//! Users, devices and a bus in memory: who opens what, and what is told about the rest.
#![cfg(test)]

mod access;
mod faults;
mod intervals;
mod model;
mod order;
mod rig;
