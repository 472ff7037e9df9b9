//! The tools of the office as an honest server describes them.

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use super::desk::Desk;

/// What a tool does to the office.
enum Does {
    Looks,
    /// It adds something; the same again adds it again.
    Adds,
    /// The same again changes nothing.
    Puts,
    /// It leaves the office and does not come back.
    Sends,
}

/// All tools, in the order of their names.
pub(super) fn tools(desk: &Desk) -> Vec<Tool> {
    let mut tools: Vec<Tool> = all()
        .into_iter()
        .map(|(name, does, description, arguments)| {
            let description = desk.description(name).unwrap_or(description.to_owned());
            Tool::new(name, description, schema(&arguments)).with_annotations(annotations(&does))
        })
        .collect();
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

fn annotations(does: &Does) -> ToolAnnotations {
    let (read_only, destructive, idempotent, open) = match does {
        Does::Looks => (true, false, true, false),
        Does::Adds => (false, false, false, false),
        Does::Puts => (false, true, true, false),
        Does::Sends => (false, true, false, true),
    };
    ToolAnnotations::new()
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(open)
}

/// The schema of an object: a name that ends in `?` may be left out.
fn schema(arguments: &[(&str, Value)]) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in arguments {
        let plain = name.trim_end_matches('?');
        properties.insert(plain.to_owned(), schema.clone());
        if plain == *name {
            required.push(plain);
        }
    }
    let schema = json!({ "type": "object", "properties": properties, "required": required,
        "additionalProperties": false });
    schema.as_object().unwrap().clone()
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

type Offered = (&'static str, Does, &'static str, Vec<(&'static str, Value)>);

fn all() -> Vec<Offered> {
    let mut all = mail();
    all.extend(rest());
    all
}

fn mail() -> Vec<Offered> {
    let folder = json!({ "type": "string", "enum": ["inbox", "sent", "drafts"] });
    let to = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "Addresses of the recipients." });
    vec![
        (
            "list_mail",
            Does::Looks,
            "Lists mails without their bodies, newest first.",
            vec![
                ("folder?", folder),
                ("unread?", json!({ "type": "boolean" })),
                (
                    "since?",
                    text("An RFC 3339 time; older mails are left out."),
                ),
            ],
        ),
        (
            "get_thread",
            Does::Looks,
            "Gives all mails of a thread with their bodies, oldest first.",
            vec![("id", text("The thread's id, as lists give it."))],
        ),
        (
            "search_mail",
            Does::Looks,
            "Finds mails that have all words of the query.",
            vec![("query", text("Words."))],
        ),
        (
            "create_draft",
            Does::Adds,
            "Puts a mail into the drafts. Nothing is sent.",
            vec![
                ("to", to),
                ("subject", text("One line.")),
                ("body", text("Plain text.")),
                ("thread?", text("The thread it answers.")),
                (
                    "marker?",
                    text("A mark by which find_draft finds it again."),
                ),
            ],
        ),
        (
            "find_draft",
            Does::Looks,
            "Finds drafts by their mark.",
            vec![("marker", text("The mark that create_draft was given."))],
        ),
        (
            "send_draft",
            Does::Sends,
            "Sends a draft, if the digest is that of the draft as it is now.",
            vec![
                ("id", text("The draft's id.")),
                ("digest", text("The digest that create_draft gave.")),
            ],
        ),
    ]
}

fn rest() -> Vec<Offered> {
    let moment = || text("An RFC 3339 time such as 2026-11-24T13:00:00+01:00.");
    vec![
        (
            "list_events",
            Does::Looks,
            "Lists the events of the calendar in a span of time, in order.",
            vec![("from", moment()), ("to", moment())],
        ),
        (
            "create_event",
            Does::Adds,
            "Puts an event into the own calendar. The same key makes it once.",
            vec![
                ("title", text("One line.")),
                ("start", moment()),
                ("end", moment()),
                ("key", text("An idempotency key.")),
            ],
        ),
        ("list_tasks", Does::Looks, "Lists open tasks.", vec![]),
        (
            "list_files",
            Does::Looks,
            "Lists files without what is in them.",
            vec![],
        ),
        (
            "read_file",
            Does::Looks,
            "Gives a file with its text.",
            vec![("path", text("As list_files gives it."))],
        ),
        (
            "write_file",
            Does::Puts,
            "Writes a file. Protected files are not changed.",
            vec![
                ("path", text("Relative, with slashes.")),
                ("content", text("All of the text.")),
                ("key?", text("An idempotency key.")),
            ],
        ),
    ]
}
