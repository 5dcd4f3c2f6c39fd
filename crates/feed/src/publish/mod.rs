//! Making a repository: an author's desk with the drafts, and the tree of files to serve.
//!
//! The order of work, each step a method of [`Desk`]:
//! `create` (stages `trust/1.json`), `sign`/`import` for [`Role::Trust`], then for every publication
//! `add` (or `withdraw`, `promote`), `stage`, `sign`/`import` for [`Role::Index`] by enough holders,
//! `publish`; between publications `refresh`; for other keys `rotate`, `sign`, `publish`.
//!
//! [`Role::Trust`]: crate::document::Role::Trust
//! [`Role::Index`]: crate::document::Role::Index

mod desk;
mod error;
mod key;
mod release;
mod sets;
mod sign;
mod small;

pub use desk::{Desk, Founding, RoleKeys};
pub use error::PublishError;
pub use key::{Certificate, SecretKey};
pub use release::Published;
pub use sets::Addition;
pub use sign::{Need, Progress};
pub use small::SmallHouse;
