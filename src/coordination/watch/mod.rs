//! Watches, kept on the home shard of the connection that set them. Pure.
//!
//! [`WatchTable`] answers which connections a change concerns. A registration may be tentative: the read that sets it was sent
//! to another shard and is not answered yet; its [`Tag`]s say which reads it hangs on (docs/ordering.md, window reads).

mod watch_table;

pub use watch_table::{Fired, Tag, Tags, WatchKind, WatchTable};
