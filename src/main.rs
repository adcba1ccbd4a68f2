//! The `ringkeeper` binary: parses the command line and hands over to [`ringkeeper::cli`].

fn main() {}
