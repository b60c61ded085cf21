//! The program as a whole: people with homes, one bus, exit codes and what is printed.
#![cfg(test)]

mod access;
#[cfg(target_os = "linux")]
mod agent;
mod asking;
mod backups;
mod buses;
#[cfg(target_os = "linux")]
mod clients;
mod copies;
mod demo;
#[cfg(unix)]
mod devices;
#[cfg(unix)]
mod foreign;
mod full_disk;
mod homes;
mod inspect;
#[cfg(target_os = "linux")]
mod key_nodes;
mod keys;
#[cfg(unix)]
mod kills;
mod kinds;
#[cfg(target_os = "linux")]
mod memory;
mod messages;
#[cfg(target_os = "linux")]
mod mqtt;
#[cfg(unix)]
mod nats;
#[cfg(target_os = "linux")]
mod outages;
mod processes;
#[cfg(target_os = "linux")]
mod proxy;
#[cfg(target_os = "linux")]
mod relays;
mod rig;
#[cfg(target_os = "linux")]
mod servers;
mod times;
#[cfg(target_os = "linux")]
mod unrest;
