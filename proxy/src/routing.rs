//! Deciding where a call goes: what is known of it, of the models and of the conversation is brought
//! together for `router::decide`, and what came out is put down for the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use meter::{NanoUsd, Routing, Subject};
use router::config::DEFAULT_CLASS;
use router::split::together;
use router::switch::Stakes;
use router::{
    Asked, Barred, Caller, Features, Outlook, Reason, Route, Ruling, Split, Step, Wanted,
};
use wire::{Refusal, RequestId, Tier};

use crate::cascade;
use crate::clock::{now_ms, uptime_ms};
use crate::context::Context;
use crate::economy::{Priced, Seat};
use crate::gateway::Shared;
use crate::hints;
use crate::intake::Inbound;
use crate::learning;
use crate::refusal;
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::thrift::Thrift;

/// Bytes of a prompt that make about one token.
const BYTES_A_TOKEN: usize = 4;

/// The splits of each tenant, by class. A lock is held for a decision, some microseconds.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    tenants: DashMap<Arc<str>, Vec<(Arc<str>, Split)>>,
    /// What all of them owe together, in thousandths of a call: each alone may stray by a few calls, and
    /// many of them could stray together.
    debt: AtomicI64,
}

impl Splits {
    /// Asks the split of a class, which begins with `target`.
    pub(crate) fn with<T>(
        &self,
        tenant: &Arc<str>,
        class: &Arc<str>,
        target: u16,
        ask: impl FnOnce(&mut Split) -> T,
    ) -> T {
        let mut classes = match self.tenants.get_mut(tenant) {
            Some(classes) => classes,
            None => self.tenants.entry(Arc::clone(tenant)).or_default(),
        };
        let at = classes.iter().position(|(name, _)| name == class);
        let at = at.unwrap_or_else(|| {
            classes.push((Arc::clone(class), Split::new(target)));
            classes.len() - 1
        });
        let Some((_, split)) = classes.get_mut(at) else {
            return ask(&mut Split::new(target));
        };
        let before = split.debt();
        let answer = ask(split);
        self.owe(split.debt() - before);
        answer
    }

    /// Adds to what all owe.
    fn owe(&self, change: i64) {
        if change != 0 {
            let all = |all| Some(together(all, change));
            let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
            // It never refuses.
            let _before = self.debt.fetch_update(set, read, all);
        }
    }

    /// What all splits owe together.
    pub(crate) fn debt(&self) -> i64 {
        self.debt.load(Ordering::Relaxed)
    }

    /// Takes up what an earlier process saved under `name`; other names are left alone.
    ///
    /// # Errors
    /// When the text is no split.
    pub(crate) fn restore(
        &self,
        name: &str,
        text: &str,
        config: &router::Config,
    ) -> Result<(), serde_json::Error> {
        let Some((class, tenant)) = name.strip_prefix("split").and_then(|it| it.split_once('/'))
        else {
            return Ok(());
        };
        let class = class.strip_prefix(':').unwrap_or(DEFAULT_CLASS);
        let mut split: Split = serde_json::from_str(text)?;
        split.retarget(config.target(class));
        self.owe(split.debt());
        let mut classes = self.tenants.entry(Arc::from(tenant)).or_default();
        classes.push((Arc::from(class), split));
        Ok(())
    }

    /// Every split as it is to be saved: its name and text.
    pub(crate) fn saved(&self) -> Result<Vec<(String, String)>, serde_json::Error> {
        let mut saved = Vec::new();
        for classes in &self.tenants {
            for (class, split) in classes.value() {
                let name = if **class == *DEFAULT_CLASS {
                    format!("split/{}", classes.key())
                } else {
                    format!("split:{class}/{}", classes.key())
                };
                saved.push((name, serde_json::to_string(split)?));
            }
        }
        Ok(saved)
    }

    /// Gives every split the target that its class has now.
    pub(crate) fn retarget(&self, config: &router::Config) {
        for mut classes in self.tenants.iter_mut() {
            for (class, split) in classes.value_mut() {
                let before = split.debt();
                split.retarget(config.target(class));
                self.owe(split.debt() - before);
            }
        }
    }
}

/// A call that is to be decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deciding<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) subject: &'a Subject,
    pub(crate) inbound: &'a Inbound,
    pub(crate) context: &'a Context,
    pub(crate) thrift: &'a Thrift,
    pub(crate) request: RequestId,
}

/// Asks the router, as what the caller wrote or for a tier.
type Ask<'a> = dyn Fn(Option<Tier>, &mut Split) -> Result<Route, Refusal> + 'a;

/// A decision and what is written down of it.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) route: Route,
    pub(crate) class: Arc<str>,
    pub(crate) routing: Box<Routing>,
}

impl Decided {
    /// What is written down with an attempt at a model of `tier`: all of it with the first, class and step
    /// with others.
    pub(crate) fn routing_of(&self, attempt: u16, tier: Tier) -> Box<Routing> {
        if attempt == 0 {
            let mut routing = self.routing.clone();
            if tier != self.route.tier {
                routing.propensity_ppm = 0;
            }
            return routing;
        }
        Box::new(Routing {
            class: Arc::clone(&self.routing.class),
            step: Arc::clone(&self.routing.step),
            propensity_ppm: self.routing.propensity_ppm,
            weights: Arc::clone(&self.routing.weights),
            ..Routing::default()
        })
    }
}

impl Shared {
    /// Decides where the call goes. The last user text is unescaped into a buffer on the stack.
    pub(crate) fn decide(&self, call: &Deciding<'_>) -> Result<Decided, Refusal> {
        let (runtime, inbound) = (call.runtime, call.inbound);
        let mut buffer = [0; router::features::MOST_BYTES];
        let features = call.features(&mut buffer);
        let step = call.step(&features);
        let ruling = call.judge(step)?;
        let class = ruling.class.clone();
        let class = class.unwrap_or_else(|| Arc::clone(&runtime.default_class));
        let (head, turns) = self.learned.head(&call.subject.tenant);
        let now = now_ms();
        let seat = self.seat(call, now);
        let priced = call.priced(now);
        let stakes = |from, to| match &seat {
            Some((_, seat)) => priced.stakes(&self.cache_hits, seat, (from, to)),
            None => Stakes::default(),
        };
        let uptime = uptime_ms();
        let usable = |place| runtime.is_usable(place, uptime);
        let outlook = Outlook {
            usable: &usable,
            quote: &|place| priced.quote(place),
            stakes: &stakes,
        };
        let mut asked = Asked {
            wanted: call
                .thrift
                .wanted(Wanted::parse(&inbound.scan.model), runtime),
            dialect: inbound.dialect.name(),
            converses: inbound.dialect.converses(),
            stay: self.looping(call),
            seat: seat.as_ref().map(|(place, _)| *place),
            step,
            score: None,
            seen: None,
            head: &head,
            ruling: &ruling,
            prompt_tokens: priced.prompt_tokens,
            luck: luck(call.request),
            band: cascade::band(inbound, call.thrift, &runtime.routing),
            debt: self.splits.debt(),
        };
        // Other threads of the tenant wait for the split, not for this.
        let reads = asked.reads_text(&runtime.policy);
        asked.seen = reads.then(|| router::layers(&features));
        let ask = |tier: Option<Tier>, split: &mut Split| {
            let (mut asked, config) = (asked, &runtime.routing);
            asked.wanted = tier.map_or(asked.wanted, Wanted::Tier);
            router::decide(&features, &asked, &runtime.policy, config, &outlook, split)
                .map_err(|error| refusal::no_model(&error))
        };
        let route = self.choose(call, &class, asked.wanted, &ask)?;
        let barred = router::barred(
            &features,
            &asked,
            &runtime.policy,
            &runtime.routing,
            &outlook,
        );
        let seat = seat.map_or_else(Arc::default, |(_, seat)| seat.model);
        let routing = Box::new(Routing {
            barred: call.named(&barred),
            head: turns,
            ..call.record(&route, &ruling, &class, seat)
        });
        Ok(Decided {
            route,
            class,
            routing,
        })
    }

    /// Asks the router under the lock of the tenant's split, and again where a budget slows it down.
    fn choose(
        &self,
        call: &Deciding<'_>,
        class: &Arc<str>,
        wanted: Wanted<'_>,
        ask: &Ask<'_>,
    ) -> Result<Route, Refusal> {
        let (tenant, thrift) = (&call.subject.tenant, call.thrift);
        let target = call.runtime.routing.target(class);
        let mut route = self.splits.with(tenant, class, target, |split| {
            let route = ask(None, split)?;
            if !thrift.slows(&route, call.request) {
                return Ok(route);
            }
            split.forget(Tier::Deep);
            let slowed = ask(Some(Tier::Fast), split)?;
            Ok(Route {
                reason: Reason::Budget,
                ..slowed
            })
        })?;
        if thrift.fast.is_some() && wanted == Wanted::Tier(Tier::Fast) {
            route.reason = Reason::Budget;
        }
        if route.reason == Reason::Budget {
            let budget = thrift.fast.as_deref().unwrap_or("pacing");
            self.meter.note(tenant, budget, "degrade", now_ms());
        }
        telemetry::decided(tenant, route.tier, route.reason.as_str());
        hints::told(call.inbound.hint, &route, call.request);
        Ok(route)
    }

    /// The model that a tool loop under way began with, at the endpoint of the caller's own dialect
    /// where there is one.
    fn looping(&self, call: &Deciding<'_>) -> Option<usize> {
        let goes_on = call.inbound.scan.shape.after_tool;
        let seat = goes_on.then(|| self.sessions.seat(call.context.session))??;
        call.place(&seat.model)
    }

    /// The model of the conversation's last answer, as long as its cache may be warm.
    fn seat(&self, call: &Deciding<'_>, now_ms: i64) -> Option<(usize, Seat)> {
        let switch = &call.runtime.routing.switch;
        if !switch.enabled {
            return None;
        }
        let seat = self.sessions.seat(call.context.session)?;
        let is_warm = now_ms - seat.at_ms <= i64::from(switch.cache_ttl_s) * 1_000;
        let place = call.place(&seat.model)?;
        (is_warm && seat.tokens > 0).then_some((place, seat))
    }

    /// Takes a decision back that no upstream saw.
    pub(crate) fn forget(&self, runtime: &Runtime, subject: &Subject, decided: &Decided) {
        if decided.route.is_counted() {
            let target = runtime.routing.target(&decided.class);
            self.splits
                .with(&subject.tenant, &decided.class, target, |split| {
                    split.forget(decided.route.tier);
                });
        }
    }
}

impl Deciding<'_> {
    /// What the operator's rules say.
    fn judge(&self, step: Step) -> Result<Ruling, Refusal> {
        let headers = &self.inbound.headers;
        let (label, regions) = (hints::label(headers)?, hints::regions(headers)?);
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let caller = Caller {
            label,
            regions: &regions,
            step,
            asked: &self.inbound.scan.model,
            ..caller(self.subject, &header)
        };
        let ruling = self.runtime.policy.rules().judge(&caller);
        ruling.map_err(|error| refusal::invalid(format!("header `x-pareto-label`: {error}")))
    }

    /// Whether the operator's rules let the model at `place` see the call, whatever it can do.
    pub(crate) fn may_see(&self, place: usize) -> Result<bool, Refusal> {
        let mut buffer = [0; router::features::MOST_BYTES];
        let step = self.step(&self.features(&mut buffer));
        let (ruling, policy) = (self.judge(step)?, &self.runtime.policy);
        let model = policy.models().get(place);
        let is_open = |model| policy.rules().bar(&ruling, model, None).is_none();
        Ok(ruling.refused.is_none() && model.is_some_and(is_open))
    }

    /// What the router sees of the call; the last user text is unescaped into `buffer`.
    fn features<'b>(&'b self, buffer: &'b mut [u8; router::features::MOST_BYTES]) -> Features<'b> {
        Features {
            text: self.inbound.scan.prompt(&self.inbound.body, buffer),
            shape: &self.inbound.scan.shape,
        }
    }

    /// The step that the caller names, or else the one that is seen.
    fn step(&self, features: &Features<'_>) -> Step {
        let seen = || Step::of(features, self.inbound.system());
        self.inbound.hint.step.unwrap_or_else(seen)
    }

    /// The call as prices see it.
    fn priced(&self, now_ms: i64) -> Priced<'_> {
        let bytes = self.inbound.body.len() + self.context.bytes_elsewhere();
        Priced {
            runtime: self.runtime,
            lane: &self.inbound.scan.lane,
            prompt_tokens: u64::try_from(bytes / BYTES_A_TOKEN).unwrap_or(u64::MAX),
            answer_tokens: self.inbound.scan.max_output,
            now_ms,
        }
    }

    /// Models that are kept from the call, with the reason, by name.
    fn named(&self, barred: &[(usize, Barred)]) -> Vec<(Arc<str>, Arc<str>)> {
        let name = |(place, why): &(usize, Barred)| {
            let target = self.runtime.targets.get(*place)?;
            Some((Arc::clone(&target.name), Arc::from(why.as_str())))
        };
        barred.iter().filter_map(name).collect()
    }

    /// The place of a model, best at the endpoint of the caller's own dialect.
    fn place(&self, model: &str) -> Option<usize> {
        let own = |target: &Target| target.dialect.name() == self.inbound.dialect.name();
        let at = |own_only: bool| {
            let fits = |it: &Arc<Target>| *it.name == *model && (own(it) || !own_only);
            self.runtime.targets.iter().position(fits)
        };
        at(true).or_else(|| at(false))
    }

    /// What the ledger keeps of a decision.
    fn record(&self, route: &Route, ruling: &Ruling, class: &Arc<str>, seat: Arc<str>) -> Routing {
        let rules = self.runtime.policy.rules();
        let headers = &self.inbound.headers;
        let kept = rules.headers().filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((Arc::from(name), Arc::from(value.get(..64).unwrap_or(value))))
        });
        let shape = &self.inbound.scan.shape;
        Routing {
            class: Arc::clone(class),
            step: Arc::from(route.step.as_str()),
            score_ppm: route.score.map(|score| ppm(score.0.into())),
            threshold_ppm: route.threshold.map(|it| ppm(it.into())),
            propensity_ppm: ppm(route.propensity.into()),
            layers: route
                .layers
                .as_ref()
                .map(learning::written)
                .unwrap_or_default(),
            weights: Arc::clone(&self.runtime.weights),
            rules: rules.names(&ruling.applied).map(Arc::from).collect(),
            would: rules.names(&ruling.would).map(Arc::from).collect(),
            label: Arc::from(rules.label(ruling)),
            headers: kept.collect(),
            needs: u32::from(router::Needs::of(shape).bits()),
            prompt_tokens: self.priced(0).prompt_tokens,
            seat,
            lost: NanoUsd(route.lost_nano_usd),
            ..Routing::default()
        }
    }
}

/// Who calls, as rules see it; what is called is left open.
pub(crate) fn caller<'a>(
    subject: &'a Subject,
    header: &'a dyn Fn(&str) -> Option<&'a str>,
) -> Caller<'a> {
    Caller {
        tenant: &subject.tenant,
        team: &subject.team,
        project: &subject.project,
        user: &subject.user,
        workflow: &subject.workflow,
        label: "",
        regions: &[],
        step: Step::default(),
        asked: "",
        header,
    }
}

/// A share in millionths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 1,000,000"
)]
pub(crate) fn ppm(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 1e6).round() as u32
}

/// The end of a request's id, which is random.
fn luck(request: RequestId) -> u64 {
    let bits = u128::from_be_bytes(request.bytes());
    u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0) >> 8
}
