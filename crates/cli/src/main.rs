//! The sealcast command line.
fn main() {}
