//! OpenAI Embeddings: `POST /v1/embeddings`. No conversation: it is forwarded and metered, never
//! translated.

use serde_json::Value;

use super::{
    Asked, Change, DecodeError, Dialect, Facts, Reader, Refusal, Seen, Watch, Writer,
    model_and_cap, openai_chat,
};
use crate::call::Call;
use crate::json::{Kind, Scanner};
use crate::loss::Losses;
use crate::reply::Reply;
use crate::scan::{self, Message, Role};
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage};

/// The dialect.
#[derive(Debug)]
pub(super) struct OpenAiEmbeddings;

const ACTED: &[&str] = &["model", "input"];

const NOT_TRANSLATED: DecodeError =
    DecodeError::Shape("no conversation; embeddings are not translated");

impl Dialect for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        "openai_embeddings"
    }

    fn converses(&self) -> bool {
        false
    }

    fn path(&self) -> &'static str {
        "/v1/embeddings"
    }

    fn upstream_path(&self) -> &'static str {
        "/embeddings"
    }

    fn scan(&self, body: &[u8]) -> Result<Scan, ScanError> {
        scan::body(body, ACTED, &["input"], field)
    }

    fn edits(&self, scan: &Scan, change: &Change<'_>) -> Vec<Edit> {
        model_and_cap(
            scan,
            &Change {
                cap: None,
                ..*change
            },
            "",
        )
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(NoStream)
    }

    fn usage(&self, reply: &[u8]) -> Option<Usage> {
        openai_chat::OpenAiChat.usage(reply)
    }

    fn decode(&self, _: &[u8]) -> Result<Call, DecodeError> {
        Err(NOT_TRANSLATED)
    }

    fn encode(&self, call: &Call, _: &Change<'_>, _: &mut Losses) -> Value {
        Value::Object(call.own.clone())
    }

    fn decode_reply(&self, _: &[u8], _: &str) -> Result<Reply, DecodeError> {
        Err(NOT_TRANSLATED)
    }

    fn encode_reply(&self, _: &Reply, _: &Asked, _: &mut Losses) -> Value {
        Value::Null
    }

    fn reader(&self, origin: &str) -> Box<dyn Reader> {
        openai_chat::OpenAiChat.reader(origin)
    }

    fn writer(&self, asked: Asked) -> Box<dyn Writer> {
        openai_chat::OpenAiChat.writer(asked)
    }

    fn refuse(&self, refusal: &Refusal, request: RequestId) -> String {
        openai_chat::OpenAiChat.refuse(refusal, request)
    }

    fn refuse_in_stream(&self, refusal: &Refusal, request: RequestId, _number: u64) -> String {
        openai_chat::OpenAiChat.refuse_in_stream(refusal, request, 0)
    }

    fn list_models(&self, models: &[&str]) -> String {
        openai_chat::OpenAiChat.list_models(models)
    }

    fn show_model(&self, model: &str) -> String {
        openai_chat::OpenAiChat.show_model(model)
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        openai_chat::OpenAiChat.key_header()
    }
}

/// Takes one field of the body into the scan. Inputs given as token numbers are counted by bytes too.
fn field(scanner: &mut Scanner<'_>, name: &str, scan: &mut Scan) -> Result<(), ScanError> {
    match name {
        "model" => scan::model(scanner, scan)?,
        "input" => {
            let mut message = Message {
                role: Role::User,
                ..Message::default()
            };
            match scanner.peek()? {
                Kind::String => message.texts.push(scanner.string()?.at),
                Kind::Array => scanner.array(|scanner| {
                    if scanner.peek()? == Kind::String {
                        message.texts.push(scanner.string()?.at);
                    }
                    Ok::<(), ScanError>(())
                })?,
                _ => return Err(ScanError::Wrong("input", "a text or a list")),
            }
            message.count_into(scan);
        }
        _ => {}
    }
    Ok(())
}

/// Embeddings never stream; an event in their place is an error.
#[derive(Debug)]
struct NoStream;

impl Watch for NoStream {
    fn event(&mut self, _: &[u8]) -> Seen {
        Seen::Error
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }
}
