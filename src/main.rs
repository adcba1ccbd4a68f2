//! The `ringkeeper` binary: parses the command line and hands over to [`ringkeeper::cli`].

/// The system allocator holds on to memory after a million znodes were deleted, and is slower.
#[global_allocator]
static ALLOCATOR: ringkeeper::runtime::Allocator = ringkeeper::runtime::Allocator;

fn main() -> std::process::ExitCode {
    ringkeeper::cli::main()
}
