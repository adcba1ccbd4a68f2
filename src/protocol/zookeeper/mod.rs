//! ZooKeeper's messages.
