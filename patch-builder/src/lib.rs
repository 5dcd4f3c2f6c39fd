//! From a fix in a distribution's source to a patch module for one kernel build.
//!
//! [`build`] is the whole way. Each module of this crate is one step of it:
//!
//! - [`lock`], [`recipe`]: what people wrote: a kernel build, pinned; a fix, described.
//! - [`fetch`]: packages by exact version and digest.
//! - [`facts`], [`kallsyms`]: what the kernel is and which symbols it has, from its image.
//! - [`tree`], [`debug`], [`toolchain`]: the kernel's source, headers, symbols and, if need be, compiler, laid out
//!   in the cache.
//! - [`fixed`], [`select`]: the fix, put into the original source of a file.
//! - [`users`], [`index`]: which files of the kernel build use what a fix changes in a header.
//! - [`compile`]: a file compiled as it was for the kernel, without and with the fix.
//! - [`reproduce`]: whether the former is what the kernel runs.
//! - [`object`], [`btf`]: what differs between the two, and taking it out.
//! - [`judge`], [`refusal`]: what must not become a patch, and why.
//! - [`part`], [`units`], [`shop`]: all of this for one file that is compiled, for all that a fix is compiled
//!   in, and for one kernel build.
//! - [`cc`], [`template`]: the parts, linked with the patch module's own code.
//! - [`klp`]: unexported symbols become livepatch relocations.
//! - [`gates`]: what a finished module must be.
//! - [`boot`]: the module at work in a guest.
//! - [`supply`]: a whole release of fixes, for a person to approve.
//! - [`check`]: the harmless program that tells whether a kernel has the hole.

pub mod boot;
pub mod btf;
pub mod build;
pub mod cache;
pub mod cc;
pub mod check;
mod command;
pub mod compile;
mod complaints;
pub mod debug;
pub mod facts;
pub mod fetch;
pub mod fixed;
pub mod gates;
pub mod index;
pub mod judge;
pub mod kallsyms;
pub mod klp;
pub mod lock;
pub mod modinfo;
pub mod object;
pub mod part;
pub mod progress;
pub mod recipe;
pub mod refusal;
pub mod reproduce;
#[cfg(test)]
mod sample;
pub mod select;
pub mod shop;
pub mod supply;
pub mod template;
pub mod toolchain;
pub mod tree;
pub mod units;
mod unpack;
pub mod users;
mod version;

pub use build::{Built, Changed, Error, Evidence, PatchedObject, build, resolve};
pub use cache::Cache;
pub use command::Error as CommandError;
pub use facts::Facts;
pub use lock::KernelLock;
pub use progress::{Progress, Step};
pub use recipe::Recipe;
pub use template::ABI;
pub use unpack::Error as UnpackError;
