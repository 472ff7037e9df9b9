//! Places next to money where a test may end the process, have a call panic, or have the disk fail: between a
//! promise and what keeps it. A release build has nothing there.

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

#[cfg(debug_assertions)]
static DISK: std::sync::OnceLock<fn(&'static str) -> bool> = std::sync::OnceLock::new();

/// Has `hook` asked at each place where the disk is, once and for all, whether it fails there. Nothing asks it
/// in a release build.
pub fn on_disk(hook: fn(&'static str) -> bool) {
    #[cfg(debug_assertions)]
    let _first = DISK.set(hook);
    #[cfg(not(debug_assertions))]
    let _nobody = hook;
}

/// Whether the disk fails at the place `name`.
#[inline]
pub fn fails(name: &'static str) -> bool {
    #[cfg(debug_assertions)]
    if let Some(hook) = DISK.get() {
        return hook(name);
    }
    #[cfg(not(debug_assertions))]
    let _nobody = name;
    false
}
