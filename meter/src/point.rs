//! Places next to money where a test may end the process: between a promise and what keeps it. A release
//! build has nothing there.

/// All places, in the order in which a call comes by, and then those of the threads behind it.
pub const ALL: [&str; 21] = [
    "hold.reserved",
    "journal.room",
    "journal.put",
    "journal.write",
    "journal.written",
    "hold.written",
    "call.held",
    "call.answered",
    "call.content",
    "call.synced",
    "settle.released",
    "settle.written",
    "journal.turn",
    "journal.sync",
    "journal.synced",
    "batch.taken",
    "batch.settled",
    "ledger.rows",
    "ledger.cursor",
    "batch.committed",
    "batch.moved",
];

#[cfg(debug_assertions)]
static HOOK: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Has `hook` called at each place, once and for all. Nothing calls it in a release build.
pub fn on(hook: fn(&'static str)) {
    #[cfg(debug_assertions)]
    let _first = HOOK.set(hook);
    #[cfg(not(debug_assertions))]
    let _nobody = hook;
}

/// Here is the place `name`.
#[inline]
pub fn at(name: &'static str) {
    #[cfg(debug_assertions)]
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
    #[cfg(not(debug_assertions))]
    let _nobody = name;
}
