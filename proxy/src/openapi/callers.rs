//! What callers can ask besides tasks.

use super::Access::Anybody;
use super::Kind::{Flag, Number, OneOf, Text};
use super::{Operation, delete, get, post};

/// How a list is asked for.
const PAGE: &[(&str, super::Kind)] = &[
    ("after", Text),
    ("limit", Number(1, 100)),
    ("order", OneOf(&["asc", "desc"])),
];

const fn list(path: &'static str, says: &'static str) -> Operation {
    Operation {
        query: PAGE,
        answers: &[(200, "List")],
        ..get(path, says)
    }
}

/// A call, answered whole or as a stream.
const fn call(path: &'static str, body: &'static str, says: &'static str) -> Operation {
    Operation {
        answers: &[(200, "Object|text/event-stream")],
        ..post(path, body, says)
    }
}

pub(super) const ALL: &[Operation] = &[
    Operation {
        access: Anybody,
        ..get("/", "Who is at home")
    },
    Operation {
        access: Anybody,
        ..get("/v1/openapi.json", "This document")
    },
    call(
        "/v1/chat/completions",
        "Chat",
        "A call in the dialect of OpenAI's chat completions",
    ),
    call(
        "/v1/responses",
        "Response",
        "A call in the dialect of OpenAI's responses",
    ),
    call(
        "/v1/messages",
        "Messages",
        "A call in the dialect of Anthropic's messages",
    ),
    post("/v1/embeddings", "Embeddings", "Texts as vectors"),
    post(
        "/v1/messages/count_tokens",
        "Counted",
        "How many tokens a call in Anthropic's dialect has",
    ),
    post(
        "/v1/responses/input_tokens",
        "Response",
        "How many tokens a response's input has",
    ),
    get("/v1/models", "Models that can be named"),
    get("/v1/models/{model}", "A model"),
    get("/v1/calls/{id}", "What a settled call was and cost"),
    Operation {
        answers: &[(202, "Object"), (200, "Object")],
        ..post("/v1/feedback", "Feedback", "How good an answer was")
    },
    Operation {
        query: &[("stream", Flag), ("starting_after", Number(0, 1 << 53))],
        answers: &[(200, "Object|text/event-stream")],
        ..get("/v1/responses/{id}", "A kept response")
    },
    delete("/v1/responses/{id}", "Forgets a response"),
    Operation {
        body: None,
        ..post(
            "/v1/responses/{id}/cancel",
            "",
            "Stops a response that is made in the background",
        )
    },
    list(
        "/v1/responses/{id}/input_items",
        "What a response was asked",
    ),
    post(
        "/v1/conversations",
        "NewConversation",
        "Begins a conversation",
    ),
    get("/v1/conversations/{id}", "A conversation"),
    post(
        "/v1/conversations/{id}",
        "Metadata",
        "Changes what is kept about a conversation",
    ),
    delete("/v1/conversations/{id}", "Forgets a conversation"),
    list(
        "/v1/conversations/{id}/items",
        "What was said in a conversation",
    ),
    post(
        "/v1/conversations/{id}/items",
        "Items",
        "Adds to a conversation",
    ),
    get(
        "/v1/conversations/{id}/items/{item}",
        "One thing that was said",
    ),
    delete(
        "/v1/conversations/{id}/items/{item}",
        "Takes one thing out of a conversation",
    ),
    get(
        "/v1/results/{handle}",
        "The whole of a tool's result that was cut",
    ),
];
