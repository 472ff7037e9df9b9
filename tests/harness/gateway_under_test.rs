//! The `pareto` program under a name that Cargo hands to the tests. It dies where `PARETO_DIE_AT` says:
//! `place:n` is the n-th time that it comes by a place of `meter::point`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static PLAN: OnceLock<(String, AtomicUsize)> = OnceLock::new();

use tikv_jemallocator::Jemalloc;

/// As the program itself has it: tests look at what memory it takes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    let plan = std::env::var("PARETO_DIE_AT").ok();
    if let Some((place, times)) = plan.as_deref().and_then(|plan| plan.rsplit_once(':')) {
        let times = times.parse().expect("a number of times");
        PLAN.set((place.to_owned(), AtomicUsize::new(times)))
            .expect("the only plan");
        meter::point::on(die);
    }
    proxy::cli::main()
}

fn die(here: &'static str) {
    let Some((place, left)) = PLAN.get() else {
        return;
    };
    if place == here && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}
