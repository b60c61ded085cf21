//! A bus on the real RabbitMQ, which the tests start for themselves.
#![cfg(test)]

mod breaks;
mod check;
mod conformance;
mod early;
mod forged;
mod large;
mod rig;
mod secrecy;
mod strangers;
mod thief;
mod turns;
