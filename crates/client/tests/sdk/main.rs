//! The library as its users see it: real stores and file buses in temporary folders.

#![cfg(test)]

mod archiving;
mod asking;
mod attending;
mod broker;
mod carried;
mod clones;
mod copying;
mod crashes;
mod damage;
mod devices;
mod devices_killed;
mod ended;
mod gaps;
mod grants;
mod homes;
mod key_nodes;
mod live;
mod pairing;
mod parking;
mod processes;
mod publishing;
mod releasing;
mod rig;
mod rollback;
mod sharing;
mod shelf;
mod taking;
mod tamper;
mod tending;
