//! The znode tree, as one shard holds it: pure.
//!
//! [`DataTree`] is the part of the tree whose paths this shard owns ([`ShardMap`]). It changes only by applying committed
//! results, which always succeeds, and answers reads *as of* any position of the short window above `floor`
//! ([`DataTree::view`]): what a change replaced is kept in `history` until no read can ask for it any more.

mod acl_list;
mod child_set;
mod data_tree;
mod hash_parts;
mod history;
mod node;
mod node_store;
pub mod path;
mod shard_map;

pub use acl_list::{AclHash, AclList, AclRef, AclTable};
pub use child_set::ChildSet;
pub use data_tree::{DataTree, NodeImage};
pub use history::NodeView;
pub use node::{Node, NodeStat};
pub use shard_map::ShardMap;
