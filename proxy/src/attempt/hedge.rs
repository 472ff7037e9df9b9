//! Asking a second model beside one that takes long: whichever has content first gives the answer, and the other
//! is cancelled. Both have holds and entries of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Response;
use tokio::time::sleep;

use super::course::Course;
use super::{Dispatch, Failed, told};
use crate::care::Passage;
use crate::cascade::Leg;
use crate::gateway::Body;
use crate::runtime::Target;
use crate::telemetry::{self, Hedge};
use crate::trace::Trace;

/// How one attempt ended, and where it was made.
type Outcome<'a> = (&'a Arc<Target>, Result<Response<Body>, Failed>);

impl Dispatch<'_> {
    /// How long `target` may take before another is asked beside it; `None` where none is to be: what the call
    /// may cost is bounded, or it may do something at the vendor's that must not be done twice.
    pub(super) fn hedges_after(&self, target: &Target, leg: Leg) -> Option<Duration> {
        if !target.hedge || leg != Leg::Only {
            return None;
        }
        let scan = &self.inbound.scan;
        let is_plain = scan.shape.server_tools == 0 && !self.is_repeated();
        if !is_plain || !self.thrift.is_free() {
            return None;
        }
        let slow = target.health.speeds(scan.stream).percentile(95)?;
        Some(Duration::from_millis(slow.into()))
    }

    /// Asks `target`, and after `patience` another one of the course beside it.
    pub(super) async fn race<'a>(
        &'a self,
        course: &mut Course<'a>,
        (target, mut passage): (&'a Arc<Target>, Box<Passage>),
        patience: Duration,
        trace: &mut Trace,
    ) -> Outcome<'a> {
        let is_beaten = Arc::new(AtomicBool::new(false));
        passage.races(&is_beaten);
        let (mut own, mut others) = (trace.clone(), trace.clone());
        // The number of the first attempt is taken, whether or not its hold is made yet.
        others.attempts += 1;
        let mut first = Box::pin(self.once(target, passage, Leg::Only, &mut own));
        let early = tokio::select! {
            biased;
            result = &mut first => Some(result),
            () = sleep(patience) => None,
        };
        let beside = if early.is_none() {
            course.beside(target)
        } else {
            None
        };
        let Some((other, mut passage)) = beside else {
            let result = match early {
                Some(result) => {
                    drop(first);
                    result
                }
                None => first.await,
            };
            *trace = own;
            return (target, result);
        };
        passage.races(&is_beaten);
        let mut second = Box::pin(self.once(other, passage, Leg::Beside, &mut others));
        let (is_first, result) = tokio::select! {
            biased;
            result = &mut first => (true, result),
            result = &mut second => (false, result),
        };
        let (quick, slow) = if is_first {
            (target, other)
        } else {
            (other, target)
        };
        let ends = result.is_ok() || (is_first && matches!(result, Err(Failed::Last(_))));
        let outcome = if ends {
            is_beaten.store(true, Ordering::Relaxed);
            drop((first, second));
            (quick, result)
        } else {
            // One has failed, so that the other may take its time.
            course.told(quick, result, trace.request);
            let rest = if is_first {
                drop(first);
                second.await
            } else {
                drop(second);
                first.await
            };
            (slow, rest)
        };
        let is_second = Arc::ptr_eq(outcome.0, other);
        telemetry::hedged(target, Hedge::of(outcome.1.is_ok(), is_second));
        let attempts = own.attempts.max(others.attempts);
        *trace = if is_second { others } else { own };
        trace.attempts = attempts;
        outcome
    }
}

impl<'a> Course<'a> {
    /// Takes note of an attempt that failed beside another.
    fn told(
        &mut self,
        target: &'a Arc<Target>,
        result: Result<Response<Body>, Failed>,
        request: wire::RequestId,
    ) {
        match result {
            Err(Failed::Setback(setback)) => {
                told(request, target, &setback.refusal);
                self.failed(target, setback);
            }
            Err(Failed::Next(refusal) | Failed::Last(refusal)) => self.passes_by(target, refusal),
            Err(Failed::Again | Failed::Doubted(_)) | Ok(_) => {}
        }
    }
}
