//! The ZooKeeper service.

pub mod admin;
pub mod auth;
pub mod persistence;
pub mod processor;
pub mod server;
pub mod session;
pub mod tree;
pub mod watch;
