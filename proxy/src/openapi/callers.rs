//! What callers can ask besides tasks.

use super::Access::{self, Anybody, Key};
use super::Kind::{Flag, Number, OneOf, Text};
use super::Operation;

/// How a list is asked for.
const PAGE: &[(&str, super::Kind)] = &[
    ("after", Text),
    ("limit", Number(1, 100)),
    ("order", OneOf(&["asc", "desc"])),
];

const fn get(path: &'static str, access: Access, says: &'static str) -> Operation {
    Operation {
        method: "get",
        path,
        access,
        says,
        query: &[],
        body: None,
        answers: &[(200, "Object")],
    }
}

const fn list(path: &'static str, says: &'static str) -> Operation {
    Operation {
        query: PAGE,
        answers: &[(200, "List")],
        ..get(path, Key, says)
    }
}

const fn delete(path: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "delete",
        ..get(path, Key, says)
    }
}

const fn post(path: &'static str, body: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "post",
        body: Some(body),
        ..get(path, Key, says)
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
    get("/", Anybody, "Who is at home"),
    get("/v1/openapi.json", Anybody, "This document"),
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
    get("/v1/models", Key, "Models that can be named"),
    get("/v1/models/{model}", Key, "A model"),
    get("/v1/calls/{id}", Key, "What a settled call was and cost"),
    Operation {
        answers: &[(202, "Object"), (200, "Object")],
        ..post("/v1/feedback", "Feedback", "How good an answer was")
    },
    Operation {
        query: &[("stream", Flag), ("starting_after", Number(0, 1 << 53))],
        answers: &[(200, "Object|text/event-stream")],
        ..get("/v1/responses/{id}", Key, "A kept response")
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
    get("/v1/conversations/{id}", Key, "A conversation"),
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
        Key,
        "One thing that was said",
    ),
    delete(
        "/v1/conversations/{id}/items/{item}",
        "Takes one thing out of a conversation",
    ),
    get(
        "/v1/results/{handle}",
        Key,
        "The whole of a tool's result that was cut",
    ),
];
