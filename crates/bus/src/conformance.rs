//! The tests that every [`Bus`](crate::Bus) runs against itself.
