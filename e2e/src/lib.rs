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
pub mod bench;
pub mod cache;
pub mod check;
pub mod command;
pub mod controlplane;
mod corrupted;
pub mod demo;
pub mod fleet;
mod forgery;
pub mod gotools;
pub mod image;
mod impostor;
pub mod lab;
mod loader;
pub mod network;
pub mod node;
pub mod oci;
pub mod packages;
pub mod pki;
pub mod product;
pub mod progress;
pub mod prometheus;
mod rebundle;
pub mod registry;
pub mod repository;
pub mod scenario;
pub mod serve;
pub mod shipped;
mod spend;
mod stage;
pub mod state;
pub mod swarm;
pub mod targets;

pub use cache::Cache;
pub use lab::Lab;
