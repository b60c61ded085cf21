//! A proxy between clients and a broker: packets by hand on both sides, and real ones.
#![cfg(test)]

mod bursts;
mod bytes;
mod chaos;
mod clients;
mod doubles;
mod handshakes;
mod hostile;
mod opening;
mod parking;
mod parking_numbers;
mod parking_order;
mod parking_store;
mod real;
mod refusals;
mod reload;
mod rig;
mod sent_again;
mod tls;
mod toy;
mod values;
mod watch;
mod websocket;
mod wills;
mod wrong;
