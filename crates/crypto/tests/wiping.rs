//! What a secret held is gone from memory once it is dropped. Run it with `--release` too: that is
//! where a compiler leaves out what nobody reads.
#![cfg(test)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sealcast_crypto::{SecretBytes, wipe};

const SECRET: [u8; 8] = *b"\xb7secret\xe2";
const LEN: usize = 4096;

fn secret() -> Vec<u8> {
    SECRET.repeat(LEN / 8)
}

/// How many windows of the secret lie at an address of this process.
fn left_at(address: usize) -> usize {
    let mut bytes = [0; LEN];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, address as u64).unwrap();
    bytes.windows(8).filter(|window| *window == SECRET).count()
}

#[test]
fn freed_memory_that_nobody_wiped_still_holds_the_secret() {
    let bytes = secret();
    let (address, behind) = (bytes.as_ptr().addr(), vec![1; LEN]);
    drop(bytes);
    assert!(left_at(address) > LEN / 16);
    drop(behind);
}

#[test]
fn secret_bytes_are_wiped_when_they_are_dropped() {
    let bytes = SecretBytes::from(secret());
    let (address, behind) = (bytes.expose().as_ptr().addr(), vec![1; LEN]);
    assert_eq!(left_at(address), LEN / 8);
    drop(bytes);
    assert_eq!(left_at(address), 0);
    drop(behind);
}

#[test]
fn so_is_what_a_vector_held_before_it_was_cut() {
    let mut vector = secret();
    vector.truncate(1);
    let bytes = SecretBytes::from(vector);
    let (address, behind) = (bytes.expose().as_ptr().addr(), vec![1; LEN]);
    drop(bytes);
    assert_eq!(left_at(address), 0);
    drop(behind);
}

#[test]
fn wiping_leaves_nothing() {
    let mut bytes = secret();
    let (address, behind) = (bytes.as_ptr().addr(), vec![1; LEN]);
    wipe(&mut bytes);
    drop(bytes);
    assert_eq!(left_at(address), 0);
    drop(behind);
}
