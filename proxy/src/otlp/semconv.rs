//! The conventions of OpenTelemetry that are followed, in one place: when they change, this file does. How the
//! product's own words map to them stands in ARCHITECTURE.md as well, which the test below sees to.

/// The version that is followed: the last in which these names stood beside all others, before those for
/// generative AI moved to a place of their own, where none has been released yet.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.0";

// Names of attributes, by what the product calls them.
pub(crate) const OPERATION: &str = "gen_ai.operation.name";
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
pub(crate) const REQUESTED: &str = "gen_ai.request.model";
pub(crate) const MODEL: &str = "gen_ai.response.model";
pub(crate) const FINISH: &str = "gen_ai.response.finish_reasons";
pub(crate) const SESSION: &str = "gen_ai.conversation.id";
pub(crate) const PROMPT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub(crate) const ANSWER_TOKENS: &str = "gen_ai.usage.output_tokens";
pub(crate) const CACHE_READ: &str = "gen_ai.usage.cache_read.input_tokens";
pub(crate) const CACHE_WRITE: &str = "gen_ai.usage.cache_creation.input_tokens";
pub(crate) const TOKEN_KIND: &str = "gen_ai.token.type";
pub(crate) const HOST: &str = "server.address";
pub(crate) const PORT: &str = "server.port";
pub(crate) const METHOD: &str = "http.request.method";
pub(crate) const STATUS: &str = "http.response.status_code";
pub(crate) const ERROR: &str = "error.type";
pub(crate) const SERVICE: &str = "service.name";
pub(crate) const VERSION: &str = "service.version";
pub(crate) const INSTANCE: &str = "service.instance.id";
/// Marks what there was no series for.
pub(crate) const OVERFLOW: &str = "otel.metric.overflow";

/// A histogram.
#[derive(Debug)]
pub(crate) struct Instrument {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) what: &'static str,
    /// The bounds that the conventions advise.
    pub(crate) bounds: &'static [f64],
}

/// Doubled from a hundredth of a second.
const TIMES: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];

pub(crate) const TOKENS: Instrument = Instrument {
    name: "gen_ai.client.token.usage",
    unit: "{token}",
    what: "Number of input and output tokens used.",
    bounds: &[
        1.0,
        4.0,
        16.0,
        64.0,
        256.0,
        1_024.0,
        4_096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
        67_108_864.0,
    ],
};

pub(crate) const ATTEMPT_TIME: Instrument = Instrument {
    name: "gen_ai.client.operation.duration",
    unit: "s",
    what: "GenAI operation duration.",
    bounds: TIMES,
};

pub(crate) const CALL_TIME: Instrument = Instrument {
    name: "gen_ai.server.request.duration",
    unit: "s",
    what: "Generative AI server request duration such as time-to-last byte or last output token.",
    bounds: TIMES,
};

pub(crate) const FIRST_TOKEN: Instrument = Instrument {
    name: "gen_ai.server.time_to_first_token",
    unit: "s",
    what: "Time to generate first token for successful responses.",
    bounds: &[
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ],
};

pub(crate) const EACH_TOKEN: Instrument = Instrument {
    name: "gen_ai.server.time_per_output_token",
    unit: "s",
    what: "Time per output token generated after the first token for successful responses.",
    bounds: &[
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    ],
};

/// What the calls of a dialect are called.
pub(crate) fn operation(dialect: &str) -> &'static str {
    if dialect.ends_with("embeddings") {
        "embeddings"
    } else {
        "chat"
    }
}

/// Whose dialect an endpoint speaks: the conventions ask for what is known best, whoever is behind it.
pub(crate) fn provider(dialect: &str) -> &'static str {
    match dialect.split('_').next() {
        Some("openai") => "openai",
        Some("anthropic") => "anthropic",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The product's words and the conventions' names for them. What is not here is `pareto.` and the word.
    const TABLE: &[(&str, &str)] = &[
        ("kind of call", OPERATION),
        ("vendor of the endpoint's dialect", PROVIDER),
        ("model asked for", REQUESTED),
        ("model that answered", MODEL),
        ("why the answer ended", FINISH),
        ("session", SESSION),
        ("prompt tokens", PROMPT_TOKENS),
        ("answer tokens", ANSWER_TOKENS),
        ("tokens read from a prompt cache", CACHE_READ),
        ("tokens written to a prompt cache", CACHE_WRITE),
        ("prompt or answer", TOKEN_KIND),
        ("endpoint's host", HOST),
        ("endpoint's port", PORT),
        ("method", METHOD),
        ("status", STATUS),
        ("refusal's code, status or outcome", ERROR),
        ("prompt and answer tokens of an attempt", TOKENS.name),
        ("an attempt's time", ATTEMPT_TIME.name),
        ("a call's time", CALL_TIME.name),
        ("arrival to first content", FIRST_TOKEN.name),
        ("time of each token after it", EACH_TOKEN.name),
    ];

    #[test]
    fn the_table_for_people_says_the_same() {
        let text = include_str!("../../../ARCHITECTURE.md");
        assert!(text.contains(SCHEMA_URL), "{SCHEMA_URL}");
        for (word, name) in TABLE {
            let row = format!("| {word} | `{name}` |");
            assert!(text.contains(&row), "not in ARCHITECTURE.md: {row}");
        }
    }

    #[test]
    fn every_dialect_has_an_operation_and_a_vendor() {
        for dialect in wire::dialect::ALL {
            assert_ne!(provider(dialect.name()), "_OTHER", "{}", dialect.name());
        }
        assert_eq!(operation("openai_embeddings"), "embeddings");
        assert_eq!(operation("anthropic_messages"), "chat");
    }
}
