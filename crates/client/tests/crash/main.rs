//! Crashes of whole processes, power cuts and failing disks, under the real store and the real bus.
#![cfg(test)]
#![cfg(unix)]

mod aborts;
mod disk;
mod keys;
mod parked;
mod play;
mod scene;
mod shelf;
