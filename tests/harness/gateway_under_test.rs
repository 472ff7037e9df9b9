//! The `pareto` program under a name that Cargo hands to the tests. At places of `meter::point` it does what a
//! variable says: `place:n` is the n-th time that it comes by. `PARETO_DIE_AT` ends the process, `PARETO_PANIC_AT`
//! panics, and `PARETO_FAIL_AT` has the disk fail; asked again after that, the process ends, because what has
//! failed on the disk is not to be tried again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tikv_jemallocator::Jemalloc;

/// As the program itself has it: tests look at what memory it takes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

static DIE: Plan = Plan::new("PARETO_DIE_AT");
static PANIC: Plan = Plan::new("PARETO_PANIC_AT");
static FAIL: Plan = Plan::new("PARETO_FAIL_AT");

/// What is to happen at a place, and after how many times more.
struct Plan {
    variable: &'static str,
    place: OnceLock<Option<String>>,
    left: AtomicUsize,
}

impl Plan {
    const fn new(variable: &'static str) -> Self {
        Self {
            variable,
            place: OnceLock::new(),
            left: AtomicUsize::new(0),
        }
    }

    /// Reads it.
    fn read(&self) {
        let plan = std::env::var(self.variable).ok();
        let plan = plan.as_deref().and_then(|plan| plan.rsplit_once(':'));
        if let Some((_, times)) = plan {
            let times = times.parse().expect("a number of times");
            self.left.store(times, Ordering::SeqCst);
        }
        let place = plan.map(|(place, _)| place.to_owned());
        self.place.set(place).expect("read once");
    }

    /// How many times are left before it happens, this one not counted; `None` at another place, and once it
    /// has.
    fn comes_by(&self, here: &str) -> Option<usize> {
        let place = self.place.get().and_then(|it| it.as_deref());
        if place != Some(here) {
            return None;
        }
        let less = |left: usize| left.checked_sub(1);
        let before = (self.left).fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        before.ok().map(|before| before - 1)
    }
}

fn main() -> std::process::ExitCode {
    for plan in [&DIE, &PANIC, &FAIL] {
        plan.read();
    }
    meter::point::on(pass);
    meter::point::on_disk(fails);
    proxy::cli::main()
}

fn pass(here: &'static str) {
    if DIE.comes_by(here) == Some(0) {
        std::process::abort();
    }
    if PANIC.comes_by(here) == Some(0) {
        panic!("a test has it panic here");
    }
}

fn fails(here: &'static str) -> bool {
    let is_planned = FAIL.place.get().and_then(|it| it.as_deref()) == Some(here);
    match FAIL.comes_by(here) {
        Some(left) => left == 0,
        None if is_planned => {
            eprintln!("tried again after it has failed: {here}");
            std::process::abort()
        }
        None => false,
    }
}
