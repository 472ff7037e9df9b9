//! The `pareto` program under a name that Cargo hands to the tests.

fn main() -> std::process::ExitCode {
    proxy::cli::main()
}
