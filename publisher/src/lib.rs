//! From the release parts that a build leaves to a repository that any web server can serve: keys, packs, TUF metadata,
//! bundles, and what a release will cost its hosts. `garboard keys`, `publish` and `bundle` are this crate's command
//! lines; the format is the crate `release-format`'s.
//!
//! What is promised of a repository: everything in it but `metadata/timestamp.json` is written once and never changed;
//! the timestamp is replaced last, in one step, after a client has read the whole new state; so an interrupted
//! publication leaves the old state valid, and a copy that takes the timestamp last is valid too. A version that was
//! published once is never published with other bytes. The clock is an argument.
//!
//! TUF metadata are verified by `tough`, the client that hosts use, and signed here with `ring` over `tough`'s canonical form.

pub mod bundle;
pub mod cost;
pub mod diff;
mod differences;
mod earlier;
mod error;
mod files;
pub mod keys;
mod metadata;
mod pack;
pub mod parts;
mod patch;
mod prune;
pub mod publish;
pub mod repository;
pub mod signer;
mod ways;

pub use error::PublishError;
pub use metadata::{Expiries, Role, check_trusted_root};
