//! One file (or folder) per outside system. A client speaks that system's language and knows nothing of ours:
//! it imports no other module of this crate.

pub mod cloud;
pub mod console;
pub mod dns;
pub mod docker;
pub mod query;
pub mod rsync;
pub mod ssh;
