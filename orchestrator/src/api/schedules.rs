//! `/v1/schedules`.

use http::{Method, Response};
use serde_json::json;

use crate::desk::{Desk, NewSchedule, Problem};
use crate::model::Body;

use super::request::Question;
use super::{answer, tasks};

/// Answers a request behind `/v1/schedules`.
pub(super) async fn route(
    desk: &Desk,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    let caller = &it.caller;
    match (rest, &it.method) {
        ([], &Method::POST) => {
            let new: NewSchedule = it.said()?;
            Ok(answer::json(201, &desk.schedule(caller, new).await?))
        }
        ([], _) => {
            it.only(&[Method::GET, Method::POST])?;
            let limit = it.limit()?;
            let after = it.asked("after").unwrap_or_default().to_owned();
            let all = desk.schedules(caller, after, limit).await?;
            let last = all.last().and_then(|it| it.get("id")?.as_str());
            Ok(answer::list(&all, limit, last))
        }
        ([id], &Method::GET) => {
            let (record, kept) = desk.scheduled(caller, id).await?;
            Ok(answer::json(200, &kept.shown(&record.tenant)))
        }
        ([id], &Method::PATCH) => {
            if !it.body.is_object() {
                return Err(Problem::field("body", "must be an object"));
            }
            let changed = desk.reschedule(caller, id, &it.body).await?;
            Ok(answer::json(200, &changed))
        }
        ([id], &Method::DELETE) => {
            desk.unschedule(caller, id).await?;
            let gone = json!({ "id": id, "object": "schedule.deleted", "deleted": true });
            Ok(answer::json(200, &gone))
        }
        ([_], _) => {
            it.only(&[Method::GET, Method::PATCH, Method::DELETE])?;
            Err(it.no_such_path())
        }
        ([id, "run"], _) => {
            it.only(&[Method::POST])?;
            Ok(tasks::begun(&desk.run_now(caller, id).await?))
        }
        _ => Err(it.no_such_path()),
    }
}
