//! What a server may ask of us and tell us by itself: that its tools have changed, that a call goes on,
//! that it wants to ask its user something. It gets no model and no folders.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::ClientHandler;
use rmcp::ErrorData;
use rmcp::model::{
    ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
    ElicitationCapability, FormElicitationCapability, Implementation, ProgressNotificationParam,
    ProgressToken, ProtocolVersion, RequestId,
};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext, RoleClient};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::tool::config::Elicitation;

/// What is known of a connection from the server's own words.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The list of tools is not what it was.
    stale: AtomicBool,
    running: Mutex<HashMap<ProgressToken, Arc<Running>>>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Running {
    id: RequestId,
    /// Told at each sign of progress.
    pub(super) progress: Notify,
    asked: Mutex<Option<Question>>,
}

/// What a server asked its user.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) message: String,
    pub(super) schema: Value,
}

impl Watch {
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    pub(super) fn set_stale(&self, is_stale: bool) {
        self.stale.store(is_stale, Ordering::Release);
    }

    /// Requests that wait for their answers.
    pub(super) fn running(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn begin(&self, token: ProgressToken, id: RequestId) -> Arc<Running> {
        let running = Arc::new(Running {
            id,
            progress: Notify::new(),
            asked: Mutex::default(),
        });
        self.lock().insert(token, Arc::clone(&running));
        running
    }

    pub(super) fn end(&self, token: &ProgressToken) {
        self.lock().remove(token);
    }

    /// The request for which a question came: the one on whose stream it came, or else the only one
    /// there is. Where several wait, nobody can tell, and none is said to have asked.
    fn asker(&self, origin: Option<&InboundStreamOrigin>) -> Option<Arc<Running>> {
        let running = self.lock();
        if let Some(InboundStreamOrigin::OutboundRequest(id)) = origin {
            return running.values().find(|it| it.id == *id).cloned();
        }
        let mut all = running.values();
        let only = all.next().cloned();
        all.next().is_none().then_some(only).flatten()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ProgressToken, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// What the server asked its user in the meantime.
    pub(super) fn asked(&self) -> Option<Question> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) watch: Arc<Watch>,
    pub(super) elicitation: Elicitation,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        let form = ElicitationCapability::new().with_form(FormElicitationCapability::default());
        capabilities.elicitation = Some(form);
        let us = Implementation::new("pareto", env!("CARGO_PKG_VERSION"));
        let mut config = ClientConfig::new(capabilities, us);
        // The version of the old handshake; the new discovery has its own.
        config.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
        config
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let question = question(&request);
        if let Some(answer) = answer(self.elicitation, &question) {
            return Ok(ElicitResult::new(ElicitationAction::Accept).with_content(answer));
        }
        if let Some(running) = self.watch.asker(context.extensions.get()) {
            let mut asked = running.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.get_or_insert(question);
        }
        Ok(ElicitResult::new(ElicitationAction::Decline))
    }

    #[expect(
        deprecated,
        reason = "older servers ask for folders, and are to be told that there are none"
    )]
    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<
            rmcp::model::ListRootsRequestMethod,
        >())
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let running = self.watch.lock().get(&params.progress_token).cloned();
        if let Some(running) = running {
            running.progress.notify_one();
        }
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.watch.set_stale(true);
    }
}

/// What a request of a server's asks.
pub(super) fn question(request: &ElicitRequestParams) -> Question {
    match request {
        ElicitRequestParams::FormElicitationParams {
            message,
            requested_schema,
            ..
        } => Question {
            message: message.clone(),
            schema: serde_json::to_value(requested_schema).unwrap_or(Value::Null),
        },
        ElicitRequestParams::UrlElicitationParams { message, url, .. } => Question {
            message: message.clone(),
            schema: json!({ "type": "string", "format": "uri", "const": url }),
        },
        _ => Question {
            message: "the server asks in a way that is not known here".to_owned(),
            schema: Value::Null,
        },
    }
}

/// The answer to a form from its own defaults, where the operator lets them count and every field that
/// must be there has one.
pub(super) fn answer(elicitation: Elicitation, question: &Question) -> Option<Value> {
    if elicitation != Elicitation::Defaults {
        return None;
    }
    let fields = question.schema.get("properties")?.as_object()?;
    let defaults: Map<String, Value> = fields
        .iter()
        .filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())))
        .collect();
    let required = question.schema.get("required").and_then(Value::as_array);
    let is_whole = required.into_iter().flatten().all(|name| {
        name.as_str()
            .is_some_and(|name| defaults.contains_key(name))
    });
    is_whole.then_some(Value::Object(defaults))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(schema: Value) -> Question {
        Question {
            message: "who?".to_owned(),
            schema,
        }
    }

    #[test]
    fn forms_are_answered_with_defaults_only_where_that_is_set_and_whole() {
        let whole = form(json!({
            "type": "object",
            "properties": { "name": { "type": "string", "default": "Ada" }, "note": { "type": "string" } },
            "required": ["name"],
        }));
        assert_eq!(answer(Elicitation::Ask, &whole), None);
        assert_eq!(
            answer(Elicitation::Defaults, &whole),
            Some(json!({ "name": "Ada" }))
        );
        let half = form(json!({
            "type": "object",
            "properties": { "name": { "type": "string" } },
            "required": ["name"],
        }));
        assert_eq!(answer(Elicitation::Defaults, &half), None);
    }

    #[test]
    fn a_question_belongs_to_the_request_it_came_with() {
        let watch = Watch::default();
        let token = |n| ProgressToken(RequestId::Number(n));
        let one = watch.begin(token(1), RequestId::Number(11));
        let asker = watch.asker(None);
        assert!(asker.is_some_and(|it| it.id == one.id));
        watch.begin(token(2), RequestId::Number(12));
        assert!(watch.asker(None).is_none());
        let origin = InboundStreamOrigin::OutboundRequest(RequestId::Number(12));
        let asker = watch.asker(Some(&origin));
        assert!(asker.is_some_and(|it| it.id == RequestId::Number(12)));
        watch.end(&token(2));
        assert!(watch.asker(None).is_some_and(|it| it.id == one.id));
    }
}
