//! What can be asked of tasks: by callers of their own, by operators behind `/api` of all.

use super::Kind::{Flag, Number, Text};
use super::{Operation, delete, get, post};

const PAGE: &[(&str, super::Kind)] = &[("after", Text), ("limit", Number(1, 200))];

const fn list(path: &'static str, says: &'static str) -> Operation {
    Operation {
        query: PAGE,
        answers: &[(200, "List")],
        ..get(path, says)
    }
}

/// Begins a task, unless it has begun already.
const fn begin(path: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "post",
        answers: &[(200, "Task"), (201, "Task")],
        ..get(path, says)
    }
}

pub(super) const ALL: &[Operation] = &[
    Operation {
        query: &[
            ("status", Text),
            ("before", Text),
            ("counts", Flag),
            ("tenant", Text),
            ("limit", Number(1, 200)),
        ],
        answers: &[(200, "List")],
        ..get("/v1/tasks", "Tasks, the newest first")
    },
    Operation {
        body: Some("Brief"),
        ..begin("/v1/tasks", "Begins a task")
    },
    Operation {
        answers: &[(200, "Task")],
        ..get("/v1/tasks/{id}", "A task")
    },
    delete("/v1/tasks/{id}", "Erases what an ended task knew"),
    Operation {
        query: &[
            ("after", Number(0, 1 << 53)),
            ("types", Text),
            ("limit", Number(1, 200)),
        ],
        answers: &[(200, "List|text/event-stream")],
        ..get(
            "/v1/tasks/{id}/events",
            "What happened to a task; as a stream where one is accepted",
        )
    },
    get("/v1/tasks/{id}/plan", "What a task is going to do"),
    get("/v1/tasks/{id}/effects", "What a task has changed"),
    get("/v1/tasks/{id}/usage", "What a task has used"),
    get("/v1/tasks/{id}/explain", "Why a task stands where it does"),
    get("/v1/tasks/{id}/artifacts", "What a task has made"),
    Operation {
        answers: &[(200, "*/*")],
        ..get(
            "/v1/tasks/{id}/artifacts/{name}",
            "A file that a task has made",
        )
    },
    post("/v1/tasks/{id}/pause", "Reason", "Lets a task wait"),
    post("/v1/tasks/{id}/resume", "Nothing", "Lets a task go on"),
    post("/v1/tasks/{id}/cancel", "Reason", "Ends a task"),
    post("/v1/tasks/{id}/steer", "Words", "Says something to a task"),
    post("/v1/tasks/{id}/raise", "More", "Gives a task more to spend"),
    begin("/v1/tasks/{id}/retry", "Begins an ended task again"),
    Operation {
        query: &[("task", Text), ("after", Text), ("limit", Number(1, 200))],
        answers: &[(200, "List")],
        ..get("/v1/approvals", "What waits for a person")
    },
    get("/v1/approvals/{id}", "One thing that waits for a person"),
    post("/v1/approvals/{id}/decision", "Decision", "Decides"),
    post("/v1/inputs/{id}", "Answer", "Answers a task's question"),
    list("/v1/standing-approvals", "What is approved beforehand"),
    Operation {
        query: &[("dry_run", Flag)],
        answers: &[(200, "Object"), (201, "Object")],
        ..post("/v1/standing-approvals", "Standing", "Approves beforehand")
    },
    delete("/v1/standing-approvals/{id}", "Withdraws an approval"),
    list("/v1/schedules", "Schedules"),
    Operation {
        answers: &[(201, "Object")],
        ..post(
            "/v1/schedules",
            "Schedule",
            "Has a task begin again and again",
        )
    },
    get("/v1/schedules/{id}", "A schedule"),
    Operation {
        method: "patch",
        ..post("/v1/schedules/{id}", "Object", "Changes a schedule")
    },
    delete("/v1/schedules/{id}", "Ends a schedule"),
    begin("/v1/schedules/{id}/run", "Begins a schedule's task now"),
    Operation {
        answers: &[(200, "List")],
        ..get("/v1/skills", "Skills that a brief may name")
    },
    Operation {
        answers: &[(200, "List")],
        ..get("/v1/tools", "Tools, and what was accepted of them")
    },
    Operation {
        query: &[
            ("task", Text),
            ("actor", Text),
            ("kind", Text),
            ("types", Text),
            ("from", Text),
            ("to", Text),
            ("after", Text),
            ("limit", Number(1, 200)),
        ],
        answers: &[(200, "List|application/jsonl")],
        ..get("/v1/audit", "Every event of every task")
    },
    get("/v1/audit/verify", "Whether the log is what was written"),
    get("/v1/exceptions", "What waits for somebody to look"),
];

/// What only operators can ask of them.
pub(super) const OPERATORS: &[Operation] = &[post(
    "/v1/tools/{name}/accept",
    "Pin",
    "Accepts a tool as it is now",
)];
