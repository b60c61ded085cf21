//! What anybody who can write to a bus may do to what lies there: each byte of each object altered,
//! objects cut short, doubled, swapped and moved. A reader that comes afresh refuses what was altered,
//! for the right reason; what does not depend on it opens as before, and nothing else does.

mod control;
mod envelopes;
mod history;
mod places;
