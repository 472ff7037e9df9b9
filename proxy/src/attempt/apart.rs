//! An attempt whose endpoint answers at once and whole, for the bench of a call's phases: what
//! [`Dispatch::run`] and `relay::whole` do before and behind the network.

use bytes::Bytes;

use super::course::{Course, Turn};
use super::{Dispatch, Failed};
use crate::cascade::Leg;
use crate::clock::now_ms;
use crate::refusal;
use crate::relay::{self, Billing};
use crate::trace::{Phase, Trace};

impl Dispatch<'_> {
    /// Holds, and settles by `reply`.
    pub(crate) async fn answered_with(
        &self,
        reply: &Bytes,
        trace: &mut Trace,
    ) -> Result<Bytes, Failed> {
        let order = self.decided.route.order.iter();
        let targets = order.filter_map(|it| self.runtime.targets.get(it));
        let manner = self.manner();
        let mut left = Vec::with_capacity(8);
        for target in targets.filter(|it| self.thrift.allows(it, self.runtime, now_ms())) {
            target.arranged(manner.lean, &mut left);
        }
        let mut course = Box::new(Course::along(left, manner));
        let Turn::Ask(target, passage) = course.turn() else {
            let nobody = refusal::upstream(503, "upstream_failed", String::new());
            return Err(Failed::Last(nobody));
        };
        let capped = self.is_bounded(target);
        let wanted = self.cap(target, capped);
        let prepared = match self.as_it_is(target, capped.then_some(wanted)) {
            Some(prepared) => prepared,
            None => Box::pin(self.rewritten(target, capped.then_some(wanted))).await?,
        };
        let holding = self.hold(target, Leg::Only, trace, &prepared, (wanted, capped));
        let (mut hold, cap) = holding.await?;
        trace.attempts += 1;
        let _body = self.body(target, &prepared, capped.then_some(cap));
        hold.sent(now_ms());
        let sent = self.inbound.body.clone();
        let billing = Billing::new(hold, trace.clone(), sent, passage, false)
            .seated(&self.shared.sessions, self.context.session);
        trace.lap(Phase::Upstream);
        Ok(relay::settled(self, target, reply, billing, trace).await)
    }
}
