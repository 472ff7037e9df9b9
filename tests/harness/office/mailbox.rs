//! Mail: lists, threads, and drafts that are sent by id and digest, so that what was looked at is what
//! leaves.

use serde_json::{Value, json};

use super::desk::{Call, Desk, digest};

/// Mails without their bodies, newest first.
pub(super) fn list(desk: &Desk, call: &Call) -> Result<Value, String> {
    let folder = call.given("folder").unwrap_or("inbox");
    if folder == "drafts" {
        let mut drafts = desk.list("drafts");
        drafts.retain(|draft| draft["sent"] == false);
        drafts.reverse();
        return Ok(json!({ "mails": heads(drafts) }));
    }
    let unread = call.arguments["unread"].as_bool();
    let since = call.given("since").unwrap_or_default();
    let mut mails = desk.list("mail");
    mails.retain(|mail| {
        mail["folder"] == folder
            && unread.is_none_or(|unread| mail["unread"] == unread)
            && mail["date"].as_str().unwrap_or_default() >= since
    });
    Ok(json!({ "mails": heads(mails) }))
}

fn heads(mut mails: Vec<Value>) -> Vec<Value> {
    let date = |mail: &Value| mail["date"].as_str().unwrap_or_default().to_owned();
    mails.sort_by_key(|mail| std::cmp::Reverse(date(mail)));
    for mail in &mut mails {
        mail.as_object_mut().unwrap().remove("body");
    }
    mails
}

/// All mails of a thread, oldest first.
pub(super) fn thread(desk: &Desk, call: &Call) -> Result<Value, String> {
    let id = call.text("id")?;
    let mut mails = desk.list("mail");
    mails.retain(|mail| mail["thread"] == id);
    mails.sort_by_key(|mail| mail["date"].as_str().unwrap_or_default().to_owned());
    let last = mails.last().ok_or(format!("there is no thread {id}"))?;
    let answered = last["folder"] == "sent";
    Ok(
        json!({ "id": id, "subject": mails[0]["subject"], "answered": answered,
        "count": mails.len(), "mails": mails }),
    )
}

/// Mails that have all words of the query somewhere.
pub(super) fn search(desk: &Desk, call: &Call) -> Result<Value, String> {
    let query = call.text("query")?.to_lowercase();
    let mut mails = desk.list("mail");
    mails.retain(|mail| {
        let text = mail.to_string().to_lowercase();
        query.split_whitespace().all(|word| text.contains(word))
    });
    Ok(json!({ "mails": heads(mails) }))
}

/// What of a draft its digest is of.
fn digest_of(draft: &Value) -> String {
    let to = draft["to"].to_string();
    let text = |name: &str| draft[name].as_str().unwrap_or_default().to_owned();
    let (subject, body, thread) = (text("subject"), text("body"), text("thread"));
    digest(&[&to, &subject, &body, &thread])
}

/// A list of addresses, from one text or a list of them.
fn addresses(value: &Value) -> Result<Vec<String>, String> {
    let one = value.as_str().map(|text| vec![Value::from(text)]);
    let list = one
        .or_else(|| value.as_array().cloned())
        .unwrap_or_default();
    let read = |item: &Value| {
        item.as_str()
            .filter(|it| it.contains('@'))
            .map(str::to_owned)
    };
    let read: Option<Vec<String>> = list.iter().map(read).collect();
    let read = read.filter(|list| !list.is_empty());
    read.ok_or("`to` is an address or a list of addresses".to_owned())
}

pub(super) fn create_draft(desk: &Desk, call: &Call) -> Result<Value, String> {
    let mut drafts = desk.list("drafts");
    let mut draft = json!({
        "id": format!("dr-{}", drafts.len() + 1),
        "to": addresses(&call.arguments["to"])?,
        "subject": call.text("subject")?,
        "body": call.text("body")?,
        "thread": call.given("thread"),
        "marker": call.given("marker"),
        "sent": false,
    });
    draft["digest"] = Value::from(digest_of(&draft));
    let answer = json!({ "id": draft["id"], "digest": draft["digest"], "marker": draft["marker"] });
    drafts.push(draft);
    desk.write("drafts", &drafts);
    Ok(answer)
}

/// Drafts that carry a marker.
pub(super) fn find_draft(desk: &Desk, call: &Call) -> Result<Value, String> {
    let marker = call.text("marker")?;
    let mut drafts = desk.list("drafts");
    drafts.retain(|draft| draft["marker"] == marker);
    let found = |draft: &Value| {
        json!({ "id": draft["id"], "digest": draft["digest"], "marker": draft["marker"],
            "sent": draft["sent"] })
    };
    let found: Vec<Value> = drafts.iter().map(found).collect();
    Ok(json!({ "drafts": found }))
}

/// Takes no key: who sends twice, sends twice, and `times_sent` tells.
pub(super) fn send_draft(desk: &Desk, call: &Call) -> Result<Value, String> {
    let (id, digest) = (call.text("id")?, call.text("digest")?);
    let mut drafts = desk.list("drafts");
    let draft = drafts.iter_mut().find(|draft| draft["id"] == id);
    let draft = draft.ok_or(format!("there is no draft {id}"))?;
    if draft["digest"] != digest || digest_of(draft) != digest {
        return Err(format!(
            "{digest} is not the digest of {id}; look at it again"
        ));
    }
    let times = draft["times_sent"].as_u64().unwrap_or(0) + 1;
    draft["times_sent"] = Value::from(times);
    draft["sent"] = Value::from(true);
    let answer = json!({ "id": id, "sent": true, "to": draft["to"] });
    desk.write("drafts", &drafts);
    Ok(answer)
}
