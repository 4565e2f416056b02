//! An API server in this process, as far as Handoff, Kubernetes and Longhorn use one here: versions, watches, patches,
//! subresources, finalizers, admission. It has no sockets: [`Server::client`] is a real client whose requests are
//! answered by a function.

mod admission;
mod follow;
mod line;
mod patch;
mod refusal;
pub mod resource;
mod serve;
mod store;
mod watch;

pub use admission::Admission;
pub use follow::Follow;
pub use line::{Crash, Line, Moment};
pub use patch::Content;
pub use refusal::Refusal;
pub use serve::{Guard, Server, Verb};
pub use store::{Change, Object, Onlooker, Store, Write};
