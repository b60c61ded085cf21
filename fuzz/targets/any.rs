//! Hands what libFuzzer makes up to the target that the program is named after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(sealcast_fuzz::run(env!("CARGO_BIN_NAME"), bytes));
});
