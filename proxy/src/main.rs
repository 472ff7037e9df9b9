//! The `pareto` program.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Calls need a lot of memory for a moment and streams a little for long: this allocator gives back what lies
/// between them.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    proxy::cli::main()
}
