//! Panics: where one was is told, and what it says only where that is written in the program. The words of
//! others are made from values, which may be what callers said.

use std::any::Any;
use std::cell::Cell;
use std::panic::{PanicHookInfo, set_hook};

use wire::RequestId;

use crate::telemetry;

thread_local! {
    /// Where the last panic of the thread was, until somebody has caught it.
    static PLACE: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// Has panics told in the log from here on, and not printed.
pub(crate) fn tell() {
    set_hook(Box::new(told));
}

fn told(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let what = said(panic.payload());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    tracing::error!(place = place.as_deref(), what, thread, "a panic");
    PLACE.set(place.map(Into::into));
}

/// What a panic says, where no value is in it.
fn said(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("withheld: it may hold what callers said")
}

/// A call has ended in a panic that was caught.
pub(crate) fn caught(request: RequestId) {
    telemetry::panicked();
    let place = PLACE.take();
    tracing::error!(%request, place = place.as_deref(), "a call ended in a panic");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_from_values_is_withheld() {
        let literal: Box<dyn Any + Send> = Box::new("a word of ours");
        assert_eq!(said(&*literal), "a word of ours");
        let made: Box<dyn Any + Send> = Box::new(format!("byte 3 of `{}`", "a prompt"));
        assert!(!said(&*made).contains("prompt"));
    }
}
