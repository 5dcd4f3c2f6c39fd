//! The patch server from outside: what it mirrors, and what it serves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod mirror;
mod serving;
mod support;
