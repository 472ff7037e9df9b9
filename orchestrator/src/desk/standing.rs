//! Standing approvals, as people make them: shown before they are saved, bounded in uses and time.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::brief::duration_ms;
use crate::event::{Caller, Gate};
use crate::log::{Change, Expected, Filter, Kind, To};
use crate::standing::{LONGEST_MS, Standing};
use crate::state::{Asked, State};
use crate::tool::Offered;

use super::{Desk, Problem, tenant_of};

/// Past tasks that are looked through to show what a rule would have covered.
const LOOKED_AT: u32 = 50;
/// Uses at most.
const MOST_USES: u32 = 10_000;

/// A rule by which acts need no asking.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewStanding {
    /// A tool's whole name.
    pub tool: String,
    /// Patterns of arguments, in which `*` stands for any text.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
    #[serde(default)]
    pub schedule: Option<String>,
    #[serde(default)]
    pub on_behalf_of: Option<String>,
    pub max_uses: u32,
    /// In ISO 8601, at most 90 days.
    pub expires_in: String,
}

impl Desk {
    /// Makes a standing approval; shows only what it would be where `dry` is set.
    ///
    /// # Errors
    /// 422 with the field that can not be taken.
    pub async fn stand(
        &self,
        caller: &Caller,
        new: &NewStanding,
        dry: bool,
    ) -> Result<Value, Problem> {
        let (standing, tool) = self.standing(caller, new).await?;
        let mut shown = shown(&standing);
        if dry {
            let covered = self.would_cover(caller, &standing, &tool).await?;
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("dry_run".to_owned(), true.into());
                fields.insert("would_have_covered".to_owned(), covered.into());
            }
            return Ok(shown);
        }
        let at = (&*caller.tenant, "standing.granted");
        self.change_by(caller, at, &shown, kept(caller, &standing))
            .await?;
        tracing::info!(
            id = standing.id,
            tool = standing.tool,
            by = standing.created_by,
            "a standing approval was made"
        );
        Ok(shown)
    }

    /// A standing approval for acts like those of a request, and the record of it.
    pub(super) async fn standing_of(
        &self,
        caller: &Caller,
        state: &State,
        request: &str,
        new: &NewStanding,
    ) -> Result<(Standing, Change), Problem> {
        let asked = state.requests.get(request).map(|request| &request.what);
        let is_like = match asked {
            Some(Asked::Approval { items, .. }) => items.iter().any(|item| item.tool == new.tool),
            _ => false,
        };
        if !is_like {
            return Err(Problem::field(
                "standing.tool",
                "is none of the tools that the request is about",
            ));
        }
        let caller = Caller {
            tenant: state.caller.tenant.clone(),
            ..caller.clone()
        };
        let (standing, _) = self.standing(&caller, new).await?;
        let change = kept(&caller, &standing);
        Ok((standing, change))
    }

    async fn standing(
        &self,
        caller: &Caller,
        new: &NewStanding,
    ) -> Result<(Standing, Offered), Problem> {
        if new.max_uses == 0 || new.max_uses > MOST_USES {
            return Err(Problem::field("max_uses", format!("is 1 to {MOST_USES}")));
        }
        if caller.tenant.is_empty() {
            return Err(Problem::field(
                "tenant",
                "say for which tenant, with the header x-pareto-tenant",
            ));
        }
        let lasts = duration_ms("expires_in", &new.expires_in)?;
        if lasts > LONGEST_MS {
            return Err(Problem::field("expires_in", "is at most 90 days (P90D)"));
        }
        let offer = self.tools().offer(&caller.tenant).await;
        let mut tools = offer.tools.into_iter();
        let tool = tools.find(|tool| tool.definition.name == new.tool);
        let tool = tool.ok_or_else(|| {
            Problem::field(
                "tool",
                format!(
                    "there is no tool `{}` now; patterns are not taken",
                    new.tool
                ),
            )
        })?;
        let unsaid = tool.manifest.destinations.iter();
        let unsaid = unsaid.filter(|name| is_always_there(&tool, name));
        if let Some(name) = unsaid
            .into_iter()
            .find(|name| !new.arguments.contains_key(*name))
        {
            return Err(Problem::field(
                format!("arguments.{name}"),
                "says where the act goes, so the rule must say what it may be",
            ));
        }
        let now_ms = self.now_ms();
        let standing = Standing {
            id: format!("sa_{}", self.new_id().hex()),
            version: 0,
            schedule: new.schedule.clone(),
            on_behalf_of: new.on_behalf_of.clone(),
            tool: new.tool.clone(),
            arguments: new.arguments.clone(),
            max_uses: new.max_uses,
            used: 0,
            expires_at_ms: now_ms + lasts,
            created_by: caller.actor(),
            created_key: caller.key.clone(),
            created_at_ms: now_ms,
        };
        Ok((standing, tool))
    }

    /// Past acts of the tenant that the rule would have covered, the latest tasks first.
    async fn would_cover(
        &self,
        caller: &Caller,
        standing: &Standing,
        tool: &Offered,
    ) -> Result<Vec<Value>, Problem> {
        let filter = Filter {
            tenant: tenant_of(caller),
            limit: LOOKED_AT,
            ..Filter::default()
        };
        let rows = self.ask(move |log| log.list(&filter)).await?;
        let mut covered = Vec::new();
        for row in rows {
            let Some(state) = self.load(&row).await? else {
                continue;
            };
            let mine = state.effects.iter().filter(|(_, effect)| {
                !matches!(effect.gate, Gate::Denied { .. })
                    && standing.covers(&state, tool, &effect.arguments)
                    && effect.tool == standing.tool
            });
            covered.extend(mine.map(|(id, effect)| {
                json!({
                    "task": state.id, "effect": id, "at_ms": effect.at_ms,
                    "arguments": effect.arguments, "status": effect.phase.as_str(),
                    "decision": effect.gate,
                })
            }));
        }
        Ok(covered)
    }

    /// The standing approvals of the caller's tenant.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn standings(
        &self,
        caller: &Caller,
        after: String,
        limit: u32,
    ) -> Result<Vec<Value>, Problem> {
        let tenant = tenant_of(caller);
        let records = self
            .ask(move |log| log.records(Kind::Standing, tenant.as_deref(), &after, limit))
            .await?;
        let now_ms = self.now_ms();
        let standings = records.iter().filter_map(|record| {
            let standing: Standing = serde_json::from_str(&record.body).ok()?;
            let mut shown = shown(&standing);
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("tenant".to_owned(), record.tenant.clone().into());
                fields.insert("stands".to_owned(), standing.stands(now_ms).into());
            }
            Some(shown)
        });
        Ok(standings.collect())
    }

    /// Takes a standing approval back.
    ///
    /// # Errors
    /// 404 where the caller's tenant has none of this id.
    pub async fn withdraw(&self, caller: &Caller, id: &str) -> Result<(), Problem> {
        let record = self.record(caller, Kind::Standing, id).await?;
        let record = record.ok_or_else(|| Problem::missing("standing approval", id))?;
        self.remove_by(caller, "standing.withdrawn", record).await?;
        tracing::info!(id, by = caller.actor(), "a standing approval was withdrawn");
        Ok(())
    }
}

/// Whether every call of the tool has this argument.
fn is_always_there(tool: &Offered, name: &str) -> bool {
    let required = tool.definition.input_schema.get("required");
    let mut required = required.and_then(Value::as_array).into_iter().flatten();
    required.any(|it| it.as_str() == Some(name))
}

fn kept(caller: &Caller, standing: &Standing) -> Change {
    Change {
        kind: Kind::Standing,
        tenant: caller.tenant.clone(),
        id: standing.id.clone(),
        expected: Expected::Absent,
        to: Some(To {
            task: None,
            due_at_ms: Some(standing.expires_at_ms),
            body: serde_json::to_string(standing).unwrap_or_default(),
        }),
    }
}

fn shown(standing: &Standing) -> Value {
    let mut shown = serde_json::to_value(standing).unwrap_or_default();
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("object".to_owned(), "standing_approval".into());
    }
    shown
}
