//! Other price lists, turned into new periods of a book. A period that is there is a fact and stays as
//! it is: what an import knows better holds from a moment on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{Amounts, Context, Document, Model, Period, Tier};
use super::{ReadBookError, STANDARD, time};

/// A list that can be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// LiteLLM's map of models: USD for one token, as JSON numbers.
    LiteLlm,
    /// The `api.json` of models.dev: USD for a million tokens, as JSON numbers.
    ModelsDev,
    /// A book in our own format.
    PriceBook,
}

/// The list can not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is no object of models")]
    Shape,
    #[error(transparent)]
    Book(#[from] ReadBookError),
    #[error("`{0}` has prices from {1} on already; import with a later --from")]
    Newer(String, String),
}

/// Merges `list` into `book`: each offer of both whose present prices differ gets a period that begins at
/// `from` (for instance `2026-12-01T00:00:00Z`), and the one before it ends there. Offers that the book
/// does not know are added where `adds` says so. Returns the book and the ids that changed.
///
/// # Errors
/// When the list is of another format, or the book already says something about the time after `from`.
pub fn merge(
    book: &Document,
    list: &str,
    source: Source,
    from: &str,
    adds: bool,
) -> Result<(Document, Vec<String>), ImportError> {
    let offered = match source {
        Source::LiteLlm => litellm(&serde_json::from_str(list)?)?,
        Source::ModelsDev => models_dev(&serde_json::from_str(list)?)?,
        Source::PriceBook => own(&Document::read(list)?),
    };
    let mut merged = book.clone();
    let mut changed = Vec::new();
    for (id, offer) in offered {
        let known = merged.models.iter_mut().find(|model| model.id == id);
        let is_new = known.is_none();
        match known {
            Some(model) => {
                if !take(model, &offer, from)? {
                    continue;
                }
            }
            None if adds => merged.models.push(added(&id, offer, from)),
            None => continue,
        }
        if is_new || !changed.contains(&id) {
            changed.push(id);
        }
    }
    Ok((merged, changed))
}

/// The present prices of an offer, as some list has them.
#[derive(Debug, Default)]
struct Offered {
    lanes: BTreeMap<String, Amounts>,
    tiers: Vec<Tier>,
    context: Context,
    source: String,
}

/// Adds a period to an offer where `offer` differs from the last one; `false` where it does not. Lanes
/// and classes of which the list says nothing stay as they were.
fn take(model: &mut Model, offer: &Offered, from: &str) -> Result<bool, ImportError> {
    let Some(last) = model.rates.last_mut() else {
        return Ok(false);
    };
    let mut next = last.clone();
    for (lane, amounts) in &offer.lanes {
        lay(next.lanes.entry(lane.clone()).or_default(), amounts);
    }
    for tier in &offer.tiers {
        let same = |it: &&mut Tier| it.above_input_tokens == tier.above_input_tokens;
        match next.tiers.iter_mut().find(same) {
            Some(known) => {
                for (lane, amounts) in &tier.lanes {
                    lay(known.lanes.entry(lane.clone()).or_default(), amounts);
                }
            }
            None => next.tiers.push(tier.clone()),
        }
    }
    if next.lanes == last.lanes && next.tiers == last.tiers {
        return Ok(false);
    }
    let at = |text: Option<&str>| time(&model.id, text).map(|at| at.unwrap_or(i64::MIN));
    let (begins, start) = (at(Some(from))?, at(last.from.as_deref())?);
    if last.to.is_some() || start >= begins {
        let known = last.to.clone().or_else(|| last.from.clone());
        return Err(ImportError::Newer(
            model.id.clone(),
            known.unwrap_or_default(),
        ));
    }
    last.to = Some(from.to_owned());
    next.from = Some(from.to_owned());
    next.from_basis = Some("import".to_owned());
    next.source = Some(offer.source.clone());
    model.rates.push(next);
    Ok(true)
}

/// Puts `new` figures over `known` ones; equal amounts keep their spelling. Lists that know but one or two
/// lives of a cache mean those that the book has for the offer.
fn lay(known: &mut Amounts, new: &Amounts) {
    for (class, text) in new {
        let lives: &[&str] = match class.as_str() {
            "cache_write_5m" => &["cache_write_5m", "cache_write_30m", "cache_write"],
            "cache_write_1h" => &["cache_write_1h", "cache_write_12h"],
            class => &[class],
        };
        let class = lives.iter().copied().find(|life| known.contains_key(*life));
        let class = class.or(lives.first().copied()).unwrap_or_default();
        let same = known
            .get(class)
            .is_some_and(|old| plain(old) == plain(text));
        if !same {
            known.insert(class.to_owned(), text.clone());
        }
    }
}

/// A decimal without needless zeros.
fn plain(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

fn added(id: &str, offer: Offered, from: &str) -> Model {
    let period = Period {
        from: Some(from.to_owned()),
        from_basis: Some("import".to_owned()),
        lanes: offer.lanes,
        tiers: offer.tiers,
        source: Some(offer.source),
        ..Period::default()
    };
    let (provider, name) = id.split_once('/').unwrap_or(("", id));
    let rest = [("model", name), ("mode", "chat")];
    Model {
        id: id.to_owned(),
        provider: provider.to_owned(),
        context: offer.context,
        rates: vec![period],
        tools: BTreeMap::new(),
        multipliers: BTreeMap::new(),
        schedule: None,
        conflict: BTreeMap::new(),
        retired_on: None,
        check: "one_source".to_owned(),
        rest: rest
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect(),
    }
}

/// The last periods of a book of our own.
fn own(document: &Document) -> Vec<(String, Offered)> {
    let models = document.models.iter().filter_map(|model| {
        let last = model.rates.last()?;
        let offer = Offered {
            lanes: last.lanes.clone(),
            tiers: last.tiers.clone(),
            context: model.context.clone(),
            source: last.source.clone().unwrap_or_default(),
        };
        Some((model.id.clone(), offer))
    });
    models.collect()
}

/// LiteLLM's names of providers, where ours are others.
const PROVIDERS: [(&str, &str); 8] = [
    ("gemini", "google"),
    ("bedrock_converse", "amazon-bedrock"),
    ("bedrock", "amazon-bedrock"),
    ("together_ai", "together"),
    ("fireworks_ai", "fireworks"),
    ("moonshot", "moonshotai"),
    ("dashscope", "alibaba"),
    ("cohere_chat", "cohere"),
];

/// Our classes by LiteLLM's names of fields.
const LITELLM_CLASSES: [(&str, &str); 7] = [
    ("input_cost_per_token", "input"),
    ("output_cost_per_token", "output"),
    ("cache_read_input_token_cost", "cache_read"),
    ("cache_creation_input_token_cost", "cache_write_5m"),
    (
        "cache_creation_input_token_cost_above_1hr",
        "cache_write_1h",
    ),
    ("output_cost_per_reasoning_token", "reasoning"),
    ("input_cost_per_audio_token", "audio_input"),
];

/// And our lanes by what it appends to them.
const LITELLM_LANES: [(&str, &str); 4] = [
    ("", STANDARD),
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
];

fn litellm(list: &Value) -> Result<Vec<(String, Offered)>, ImportError> {
    let models = list.as_object().ok_or(ImportError::Shape)?;
    let mut offers = Vec::new();
    for (name, fields) in models {
        let (Some(fields), Some(provider)) = (
            fields.as_object(),
            fields.get("litellm_provider").and_then(Value::as_str),
        ) else {
            continue;
        };
        let chats = fields
            .get("mode")
            .is_none_or(|mode| mode == "chat" || mode == "responses");
        if name == "sample_spec" || !chats {
            continue;
        }
        let ours = PROVIDERS.iter().find(|(theirs, _)| *theirs == provider);
        let ours = ours.map_or(provider, |(_, ours)| *ours);
        let bare = name
            .strip_prefix(provider)
            .and_then(|rest| rest.strip_prefix('/'));
        let lanes = litellm_lanes(fields, "");
        if !lanes.contains_key(STANDARD) {
            continue;
        }
        let offer = Offered {
            lanes,
            tiers: litellm_tiers(fields),
            context: Context {
                max_input: fields.get("max_input_tokens").and_then(Value::as_u64),
                max_output: fields.get("max_output_tokens").and_then(Value::as_u64),
                rest: Map::new(),
            },
            source: "litellm price map".to_owned(),
        };
        offers.push((format!("{ours}/{}", bare.unwrap_or(name)), offer));
    }
    Ok(offers)
}

/// The lanes whose fields end in `step`; a lane without both input and output is left out.
fn litellm_lanes(fields: &Map<String, Value>, step: &str) -> BTreeMap<String, Amounts> {
    let mut lanes = BTreeMap::new();
    for (suffix, lane) in LITELLM_LANES {
        let amounts: Amounts = LITELLM_CLASSES
            .into_iter()
            .filter_map(|(field, class)| {
                let figure = fields.get(&format!("{field}{step}{suffix}"))?;
                Some((class.to_owned(), decimal(figure, 6)?))
            })
            .collect();
        if amounts.contains_key("input") && amounts.contains_key("output") {
            lanes.insert(lane.to_owned(), amounts);
        }
    }
    lanes
}

/// Steps such as `input_cost_per_token_above_200k_tokens`.
fn litellm_tiers(fields: &Map<String, Value>) -> Vec<Tier> {
    let steps = fields.keys().filter_map(|name| {
        let text = name.strip_prefix("input_cost_per_token_above_")?;
        let thousands: u64 = text.strip_suffix("k_tokens")?.parse().ok()?;
        thousands.checked_mul(1_000).map(|above| (above, thousands))
    });
    steps
        .map(|(above_input_tokens, thousands)| Tier {
            above_input_tokens,
            lanes: litellm_lanes(fields, &format!("_above_{thousands}k_tokens")),
        })
        .filter(|tier| !tier.lanes.is_empty())
        .collect()
}

fn models_dev(list: &Value) -> Result<Vec<(String, Offered)>, ImportError> {
    let providers = list.as_object().ok_or(ImportError::Shape)?;
    let mut offers = Vec::new();
    for (provider, fields) in providers {
        let Some(models) = fields.get("models").and_then(Value::as_object) else {
            continue;
        };
        for (name, model) in models {
            let Some(cost) = model.get("cost").and_then(Value::as_object) else {
                continue;
            };
            let lane = models_dev_amounts(cost);
            if !lane.contains_key("input") || !lane.contains_key("output") {
                continue;
            }
            let above = |above_input_tokens, cost: &Value| {
                let amounts = models_dev_amounts(cost.as_object()?);
                let lanes = BTreeMap::from([(STANDARD.to_owned(), amounts)]);
                Some(Tier {
                    above_input_tokens,
                    lanes,
                })
            };
            let step = cost
                .get("context_over_200k")
                .and_then(|cost| above(200_000, cost));
            let limit = |name: &str| model.get("limit")?.get(name)?.as_u64();
            let offer = Offered {
                lanes: BTreeMap::from([(STANDARD.to_owned(), lane)]),
                tiers: step.into_iter().collect(),
                context: Context {
                    max_input: limit("input").or_else(|| limit("context")),
                    max_output: limit("output"),
                    rest: Map::new(),
                },
                source: "models.dev".to_owned(),
            };
            offers.push((format!("{provider}/{name}"), offer));
        }
    }
    Ok(offers)
}

fn models_dev_amounts(cost: &Map<String, Value>) -> Amounts {
    let classes = [
        ("input", "input"),
        ("output", "output"),
        ("cache_read", "cache_read"),
        ("cache_write", "cache_write_5m"),
        ("reasoning", "reasoning"),
        ("input_audio", "audio_input"),
    ];
    let of = |(theirs, ours): (&str, &str)| Some((ours.to_owned(), decimal(cost.get(theirs)?, 0)?));
    classes.into_iter().filter_map(of).collect()
}

/// A JSON number times ten to `shift`, as an exact decimal: its shortest text is taken, as it was
/// written, and the point is moved. `None` where it needs more than six places, which a book can not
/// hold, or is below zero.
fn decimal(figure: &Value, shift: i32) -> Option<String> {
    let text = match figure {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{part}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // How many digits stand before the point.
    let point = i32::try_from(whole.len())
        .ok()?
        .checked_add(exponent.parse().ok()?)?
        .checked_add(shift)?;
    let (before, after) = match usize::try_from(point) {
        Ok(point) if point <= 18 => {
            let padded = format!("{all:0<point$}");
            let (before, after) = padded.split_at_checked(point)?;
            (before.to_owned(), after.to_owned())
        }
        Ok(_) => return None,
        Err(_) => {
            let zeros = usize::try_from(point.unsigned_abs())
                .ok()
                .filter(|zeros| *zeros <= 18)?;
            (String::new(), format!("{}{all}", "0".repeat(zeros)))
        }
    };
    let (before, after) = (before.trim_start_matches('0'), after.trim_end_matches('0'));
    if after.len() > 6 {
        return None;
    }
    let before = if before.is_empty() { "0" } else { before };
    Some(if after.is_empty() {
        before.to_owned()
    } else {
        format!("{before}.{after}")
    })
}

#[cfg(test)]
mod tests;
