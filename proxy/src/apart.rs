//! A call's way through the gateway without the network: its phases as production measures them, with nothing
//! between them to wait for. For the bench that `pareto_phase_seconds` is held against.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use wire::dialect;

use crate::assemble::{self, Parts};
use crate::attempt::Dispatch;
use crate::clock::now_ms;
use crate::config::Config;
use crate::edge;
use crate::gateway::{Body, new_id};
use crate::identify::{self, Owner};
use crate::intake;
use crate::prepare::Canonical;
use crate::routing::Deciding;
use crate::runtime::Runtime;
use crate::thrift::Thrift;
use crate::trace::{Phase, Trace};

const PATH: &str = "/v1/chat/completions";

/// A gateway without doors.
#[derive(Debug)]
pub struct Apart {
    parts: Parts,
    key: String,
}

/// What each phase took, by its name in `pareto_phase_seconds`.
pub type Phases = Vec<(&'static str, Duration)>;

impl Apart {
    /// Opens the store that `config` names, and makes a key of `tenant`.
    ///
    /// # Errors
    /// As a start does.
    pub fn open(config: &Config, tenant: &str) -> anyhow::Result<Self> {
        let parts = assemble::parts(config, Runtime::build(config, None)?, None, None)?;
        let owner = Owner {
            tenant: tenant.to_owned(),
            ..Owner::default()
        };
        let created = identify::create(owner, &assemble::pepper(config)?)?;
        parts.shared.keys.load(vec![created.row]);
        let key = created.key.expose().to_owned();
        Ok(Self { parts, key })
    }

    /// The way of a chat call with `body`, answered with `reply` as soon as it is held.
    ///
    /// # Errors
    /// When it would be refused.
    pub async fn call(&self, body: &Bytes, reply: &Bytes) -> anyhow::Result<Phases> {
        let shared = &self.parts.shared;
        let request = self.request(body)?;
        let dialect = dialect::of_path(PATH).context("a path of calls")?;
        let mut trace = Trace::new(new_id(), dialect);
        let refused = |refusal: wire::Refusal| anyhow!(refusal.message);
        edge::check(&request)?;
        let runtime = shared.runtime.load_full();
        let subject = shared.caller(&request, &mut trace).map_err(refused)?;
        let flight = shared.admit(&subject, request.headers()).await;
        trace.flight = Some(flight.map_err(refused)?);
        let room = &shared.admission.room;
        let inbound = intake::read_call(request, dialect, &runtime.limits, room).await?;
        trace.lap(Phase::Parse);
        let context = shared.recall(&subject, &inbound).await.map_err(refused)?;
        let thrift = Thrift::of(shared, &subject, trace.most, now_ms());
        let deciding = Deciding {
            runtime: &runtime,
            subject: &subject,
            inbound: &inbound,
            context: &context,
            thrift: &thrift,
            request: trace.request,
        };
        let decided = shared.decide(&deciding).map_err(refused)?;
        trace.lap(Phase::Decide);
        let dispatch = Dispatch {
            shared,
            runtime: &runtime,
            subject: &subject,
            inbound: &inbound,
            decided: &decided,
            context: &context,
            thrift: &thrift,
            request: trace.request,
            canonical: Canonical::new(),
            deadline: None,
            writes_out: AtomicBool::new(false),
        };
        let answered = dispatch.answered_with(reply, &mut trace).await;
        answered.map_err(|_| anyhow!("an attempt that fails"))?;
        let phases = trace.phases();
        Ok(phases.map(|(phase, took)| (phase.as_str(), took)).collect())
    }

    fn request(&self, body: &Bytes) -> anyhow::Result<Request<Body>> {
        let length = body.len();
        let body = Full::new(body.clone()).map_err(|never| match never {});
        let request = Request::post(PATH)
            .header("host", "gateway")
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .header("content-length", length);
        Ok(request.body(body.boxed_unsync())?)
    }
}
