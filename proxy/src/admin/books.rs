//! The admin API of the books: exports as a stream, late usage, statements, reconciliation.

use std::io::{self, Write};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use meter::books::Span;
use meter::books::statement::Month;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::RequestId;

use super::read::{Params, Told, in_order};
use super::{Admin, Problem};
use crate::books::export::{self, Format, Version};
use crate::books::{Desk, Late, render};
use crate::clock::now_ms;

/// Pieces of an export that wait for a slow reader; it stands still beyond them.
const WAITING: usize = 8;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/export", get(export))
        .route(
            "/api/calls/{id}/corrections",
            get(corrections).post(correct),
        )
        .route("/api/statements", get(statements))
        .route("/api/statements/{tenant}/{month}", get(statement))
        .route("/api/reconcile", get(reconcile))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportParams {
    format: Format,
    from_ms: Option<i64>,
    until_ms: Option<i64>,
    tenant: Option<String>,
    #[serde(default)]
    focus_version: Version,
}

/// What is written goes to the response, piece by piece.
struct Pipe {
    to: mpsc::Sender<Result<Bytes, io::Error>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.to.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn export(
    State(admin): State<Admin>,
    Params(params): Params<ExportParams>,
) -> Result<Response, Problem> {
    let now = now_ms();
    let span = Span {
        from_ms: params.from_ms.unwrap_or_else(|| Month::of(now).start_ms()),
        until_ms: params.until_ms.unwrap_or(now.saturating_add(1)),
        tenant: params.tenant,
        ..Span::default()
    };
    in_order(Some(span.from_ms), Some(span.until_ms))?;
    let (format, version) = (params.format, params.focus_version);
    let desk = admin.parts.desk.load_full();
    let (to, mut from) = mpsc::channel(WAITING);
    // It ends with its reader: a send to nobody fails.
    drop(tokio::task::spawn_blocking(move || {
        let pipe = Pipe { to: to.clone() };
        let mut out = io::BufWriter::with_capacity(PIECE, pipe);
        if let Err(error) = export::write(&desk, format, version, &span, &mut out) {
            tracing::warn!(%error, "an export broke off");
            // The reader sees a broken body, never a whole one that is too short.
            let _told = to.blocking_send(Err(io::Error::other(error.to_string())));
        }
    }));
    let body = Body::from_stream(futures_util::stream::poll_fn(move |cx| from.poll_recv(cx)));
    let name = match format {
        Format::Csv => "attachment; filename=\"pareto.csv\"",
        Format::Focus => "attachment; filename=\"focus.csv\"",
        Format::Jsonl => "attachment; filename=\"pareto.jsonl\"",
        Format::Parquet => "attachment; filename=\"pareto.parquet\"",
    };
    let headers = [(CONTENT_TYPE, format.media()), (CONTENT_DISPOSITION, name)];
    Ok((headers, body).into_response())
}

/// Works at the desk, which blocks, off the reactor.
async fn at_desk<T: Send + 'static>(
    admin: &Admin,
    work: impl FnOnce(&Desk) -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let desk = admin.parts.desk.load_full();
    let done = tokio::task::spawn_blocking(move || work(&desk)).await;
    done?.map_err(|error| Problem(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))
}

fn id(text: &str) -> Result<RequestId, Problem> {
    let wrong =
        |error: wire::ParseRequestIdError| Problem(StatusCode::NOT_FOUND, error.to_string());
    text.parse().map_err(wrong)
}

async fn corrections(
    State(admin): State<Admin>,
    Path(request): Path<String>,
) -> Result<Json<Value>, Problem> {
    let request = id(&request)?;
    let all = at_desk(&admin, move |desk| Ok(desk.books.corrections(request)?)).await?;
    Ok(Json(json!(all)))
}

async fn correct(
    State(admin): State<Admin>,
    Path(request): Path<String>,
    Told(mut late): Told<Late>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let request = id(&request)?;
    if late.author.is_empty() {
        "admin".clone_into(&mut late.author);
    }
    let new = at_desk(&admin, move |desk| desk.late(request, &late, now_ms())).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(json!({ "new": new }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantParams {
    tenant: Option<String>,
}

async fn statements(
    State(admin): State<Admin>,
    Params(params): Params<TenantParams>,
) -> Result<Json<Value>, Problem> {
    let all = at_desk(&admin, move |desk| {
        Ok(desk.books.statements(params.tenant.as_deref())?)
    });
    let rows: Vec<Value> = all
        .await?
        .iter()
        .map(|it| {
            json!({ "tenant": it.tenant, "month": it.month, "number": it.number,
                "due_usd": it.totals.due.to_usd(), "hash": it.hash })
        })
        .collect();
    Ok(Json(Value::from(rows)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatParams {
    format: Option<render::Format>,
}

/// A closed statement, or the draft of one that is not.
async fn statement(
    State(admin): State<Admin>,
    Path((tenant, month)): Path<(String, String)>,
    Params(params): Params<FormatParams>,
) -> Result<Response, Problem> {
    let format = params.format.unwrap_or(render::Format::Json);
    let text = at_desk(&admin, move |desk| {
        let month: Month = month.parse()?;
        let closed = desk.books.statement(&tenant, month)?;
        let found = match closed {
            Some(closed) => closed,
            None => desk.books.draft(&tenant, month, &*desk.prices)?,
        };
        render::statement(&found, format)
    });
    Ok(([(CONTENT_TYPE, format.media())], text.await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanParams {
    #[serde(default)]
    from_ms: i64,
    until_ms: Option<i64>,
}

async fn reconcile(
    State(admin): State<Admin>,
    Params(params): Params<SpanParams>,
) -> Result<Json<Value>, Problem> {
    in_order(Some(params.from_ms), params.until_ms)?;
    let until = params.until_ms.unwrap_or(i64::MAX);
    let found = at_desk(&admin, move |desk| {
        let drifts = desk.books.drifts(params.from_ms, until)?;
        Ok(json!({ "drifts": drifts, "captures": desk.books.captures()? }))
    });
    Ok(Json(found.await?))
}
