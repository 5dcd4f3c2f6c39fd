//! The planner: which node goes where, when, and why not now.
//!
//! Pure: no clock, no IO, no logging; it never fails. [`plan`] takes what was seen ([`World`])
//! and gives what to write ([`Plan`]). Every eligible node is in exactly one of `actions`,
//! `holds` and `done`.

mod world;

pub use world::*;
