//! The `pareto` program under a name that Cargo hands to the tests.

use tikv_jemallocator::Jemalloc;

/// As the program itself has it: tests look at what memory it takes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    proxy::cli::main()
}
