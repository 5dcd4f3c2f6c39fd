//! From a fix in a distribution's source to a patch module for one kernel build.
//!
//! [`build`] is the whole way. Each module of this crate is one step of it:
//!
//! - [`lock`], [`recipe`]: what people wrote: a kernel build, pinned; a fix, described.
//! - [`fetch`]: packages by exact version and digest.
//! - [`facts`], [`kallsyms`]: what the kernel is and which symbols it has, from its image.
//! - [`tree`]: the kernel's headers and build tools, laid out in the cache.
//! - [`select`]: the fixed functions, cut out of the fixed source.
//! - [`cc`]: Kbuild, with the compiler that made the kernel and no other.
//! - [`template`]: the patch module's own code, and what is written beside it.
//! - [`klp`]: unexported symbols become livepatch relocations.
//! - [`gates`]: what a finished module must be.
//! - [`boot`]: the module at work in a guest.
//! - [`check`]: the harmless program that tells whether a kernel has the hole.

pub mod boot;
pub mod build;
pub mod cache;
pub mod cc;
pub mod check;
mod command;
pub mod facts;
pub mod fetch;
pub mod gates;
pub mod kallsyms;
pub mod klp;
pub mod lock;
pub mod modinfo;
pub mod progress;
pub mod recipe;
pub mod select;
pub mod template;
pub mod tree;
mod unpack;

pub use build::{Built, Error, Evidence, PatchedObject, build, resolve};
pub use cache::Cache;
pub use command::Error as CommandError;
pub use facts::Facts;
pub use lock::KernelLock;
pub use progress::{Progress, Step};
pub use recipe::Recipe;
pub use template::ABI;
pub use unpack::Error as UnpackError;
