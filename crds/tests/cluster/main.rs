//! The kinds, the charts and the admission policies on a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod access;
mod admission;
mod breach;
mod fields;
mod manifests;
mod many;
mod rules;
mod server;
