//! What operators can ask.

use super::Access::{Anybody, Operator, Sums};
use super::Kind::{OneOf, Text, Time};
use super::Operation;

const fn get(path: &'static str, access: super::Access, says: &'static str) -> Operation {
    Operation {
        access,
        answers: &[(200, "Rows")],
        ..super::get(path, says)
    }
}

const fn page(path: &'static str, says: &'static str) -> Operation {
    Operation {
        answers: &[(200, "text/html")],
        ..get(path, Sums, says)
    }
}

const fn post(path: &'static str, body: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "post",
        body: Some(body),
        answers: &[(201, "Created")],
        ..get(path, Operator, says)
    }
}

pub(super) const ALL: &[Operation] = &[
    Operation {
        answers: &[(200, "text/plain"), (503, "text/plain")],
        ..get("/livez", Anybody, "Whether the process is alive")
    },
    Operation {
        answers: &[(200, "text/plain"), (503, "text/plain")],
        ..get(
            "/readyz",
            Anybody,
            "Whether callers are served; 503 while it drains, and while the journal can not be written",
        )
    },
    Operation {
        answers: &[(200, "text/plain"), (503, "text/plain")],
        ..get("/healthz", Anybody, "The same as `/readyz`")
    },
    Operation {
        answers: &[(200, "Object")],
        ..get("/openapi.json", Sums, "This document")
    },
    Operation {
        answers: &[(200, "text/plain")],
        ..get("/metrics", Sums, "Metrics, as Prometheus reads them")
    },
    page("/", "Overview"),
    page("/explore", "Spending by any dimension"),
    page("/budgets", "Budgets and how far they are used"),
    page("/units", "What a unit of work costs"),
    page("/savings", "What routing saves"),
    page("/routing", "How calls are routed"),
    page("/chargeback", "Who is to pay what"),
    page("/quality", "How far the figures can be trusted"),
    page("/prices", "The price book"),
    page("/live", "What happens now"),
    Operation {
        answers: &[(200, "text/html")],
        ..get("/tasks", Operator, "Tasks")
    },
    Operation {
        answers: &[(200, "text/html")],
        ..get("/approvals", Operator, "What waits for a person")
    },
    Operation {
        query: &[
            ("by", Text),
            ("tenant", Text),
            ("from_ms", Time),
            ("until_ms", Time),
        ],
        answers: &[(200, "Usage")],
        ..get(
            "/api/usage",
            Sums,
            "Sums of calls, tokens and cost; `by` lists dimensions",
        )
    },
    get(
        "/api/budgets",
        Sums,
        "Every budget, what is settled and what is left",
    ),
    Operation {
        answers: &[(200, "SettledCall")],
        ..get("/api/calls/{id}", Sums, "A settled call with its attempts")
    },
    get(
        "/api/calls/{id}/corrections",
        Operator,
        "What became known of a call late",
    ),
    Operation {
        answers: &[(200, "Object"), (201, "Object")],
        ..post(
            "/api/calls/{id}/corrections",
            "Correction",
            "Says what an attempt used in truth",
        )
    },
    get("/api/overrides", Operator, "Dated changes of limits"),
    post("/api/overrides", "Override", "Changes a limit for a while"),
    get("/api/keys", Operator, "All keys, without their secrets"),
    Operation {
        answers: &[(201, "NewKey")],
        ..post("/api/keys", "Owner", "Makes a key; its secret is told once")
    },
    Operation {
        method: "delete",
        answers: &[(204, "")],
        ..get("/api/keys/{id}", Operator, "Revokes a key")
    },
    Operation {
        answers: &[(200, "Object")],
        ..get(
            "/api/config",
            Operator,
            "The configuration in use, without secrets",
        )
    },
    Operation {
        method: "post",
        answers: &[(200, "Object"), (204, "")],
        ..get("/api/reload", Operator, "Reads the configuration anew")
    },
    Operation {
        query: &[
            ("format", OneOf(&["csv", "focus", "jsonl", "parquet"])),
            ("focus_version", OneOf(&["1.2", "1.3", "1.4"])),
            ("tenant", Text),
            ("from_ms", Time),
            ("until_ms", Time),
        ],
        answers: &[(
            200,
            "text/csv|application/x-ndjson|application/vnd.apache.parquet",
        )],
        ..get("/api/export", Operator, "The entries of the ledger")
    },
    Operation {
        query: &[("tenant", Text)],
        ..get("/api/statements", Operator, "Closed statements")
    },
    Operation {
        query: &[("format", OneOf(&["json", "csv", "html"]))],
        answers: &[(200, "Object|text/csv|text/html")],
        ..get(
            "/api/statements/{tenant}/{month}",
            Operator,
            "A statement, or the draft of one that is not closed; months are written 2026-11",
        )
    },
    Operation {
        query: &[("from_ms", Time), ("until_ms", Time)],
        answers: &[(200, "Object")],
        ..get(
            "/api/reconcile",
            Operator,
            "Where bills of vendors and the ledger differ",
        )
    },
];
