//! The jute codec.
