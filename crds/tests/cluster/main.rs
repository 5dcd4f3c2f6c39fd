//! The kinds, the charts and the admission policies on a real API server.

mod admission;
mod manifests;
mod rules;
mod server;
