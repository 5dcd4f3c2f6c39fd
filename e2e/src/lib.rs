//! The lab: a real Kubernetes control plane and real nodes, each a QEMU guest with its own kernel,
//! on one small machine.
//!
//! Everything runs as plain processes in one network namespace that the lab makes itself; nothing
//! is left when it is down. Downloads, built programs and images live in one cache, keyed by what
//! they are made from.
//!
//! A program that talks to the cluster must be in the lab's network namespace: call
//! [`network::enter`] in `main`, before any thread or runtime starts.

pub mod audit;
pub mod cache;
pub mod command;
pub mod controlplane;
pub mod gotools;
pub mod image;
pub mod lab;
pub mod network;
pub mod node;
pub mod oci;
pub mod packages;
pub mod pki;
pub mod progress;
pub mod prometheus;
pub mod registry;
pub mod serve;
pub mod state;

pub use cache::Cache;
pub use lab::Lab;
