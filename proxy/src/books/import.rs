//! Reading providers' bills: usage and cost pages of OpenAI and Anthropic, and plain CSV by day or by
//! request. Amounts are read as decimals, never as floating point.

mod csv;

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use meter::NanoUsd;
use meter::books::bill::{BillDay, BillRow, Imported};
use meter::books::change::half_even;
use serde_json::Value;

pub(crate) const DAY_MS: i64 = 86_400_000;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Pages of /v1/organization/usage/completions.
    OpenaiUsage,
    /// Pages of /v1/organization/costs.
    OpenaiCosts,
    /// Pages of /v1/organizations/usage_report/messages.
    AnthropicUsage,
    /// Pages of /v1/organizations/cost_report.
    AnthropicCost,
    /// A header and lines, by day or by request.
    Csv,
}

/// A bill with neither id nor period: what stands in the file.
pub(crate) fn read(
    format: Format,
    text: &str,
    endpoints: &[String],
    model: &dyn Fn(&str) -> String,
) -> anyhow::Result<Imported> {
    let endpoint = endpoints
        .first()
        .context("name the endpoint that the bill is for with --endpoint")?;
    let mut lines = Lines {
        endpoint: endpoint.clone(),
        model,
        days: BTreeMap::new(),
        rows: Vec::new(),
    };
    match format {
        Format::Csv => csv::read(text, &mut lines)?,
        Format::OpenaiUsage | Format::OpenaiCosts => {
            let start = |bucket: &Value| {
                let at = jiff::Timestamp::from_second(bucket["start_time"].as_i64()?);
                at.ok().map(jiff::Timestamp::as_millisecond)
            };
            for (at, result) in buckets(text, start)? {
                openai(&mut lines, format, at, &result)?;
            }
        }
        Format::AnthropicUsage | Format::AnthropicCost => {
            let start = |bucket: &Value| {
                let at = bucket["starting_at"]
                    .as_str()?
                    .parse::<jiff::Timestamp>()
                    .ok()?;
                Some(at.as_millisecond())
            };
            for (at, result) in buckets(text, start)? {
                anthropic(&mut lines, format, at, &result)?;
            }
        }
    }
    let days: Vec<BillDay> = lines.days.into_values().collect();
    let at = days.iter().map(|day| day.day_ms);
    let arrivals = lines.rows.iter().map(|row| row.request.unix_ms());
    let (first, last) = (
        at.clone().chain(arrivals.clone()).min(),
        at.chain(arrivals).max(),
    );
    let midnight = |ms: i64| ms.div_euclid(DAY_MS) * DAY_MS;
    Ok(Imported {
        id: super::digest(text.as_bytes()),
        endpoints: endpoints.to_vec(),
        format: format!("{format:?}"),
        imported_at_ms: 0,
        from_ms: first.map_or(0, midnight),
        until_ms: last.map_or(0, |last| midnight(last) + DAY_MS),
        complete: false,
        rows_count: u64::try_from(lines.rows.len())?,
        days,
        rows: lines.rows,
    })
}

/// Columns of a bill that [`read`] leaves aside.
pub(crate) fn unread(format: Format, text: &str) -> Vec<String> {
    if format == Format::Csv {
        csv::unread(text)
    } else {
        Vec::new()
    }
}

/// What has been read so far.
struct Lines<'a> {
    endpoint: String,
    model: &'a dyn Fn(&str) -> String,
    days: BTreeMap<(i64, String), BillDay>,
    rows: Vec<BillRow>,
}

impl Lines<'_> {
    /// Adds to a model's day.
    fn add(
        &mut self,
        at_ms: i64,
        model: &str,
        tokens: Option<[i64; 3]>,
        calls: i64,
        cost: Option<NanoUsd>,
    ) {
        let day_ms = at_ms.div_euclid(DAY_MS) * DAY_MS;
        let model = (self.model)(model);
        let day = self
            .days
            .entry((day_ms, model.clone()))
            .or_insert_with(|| BillDay {
                day_ms,
                endpoint: self.endpoint.clone(),
                model,
                ..BillDay::default()
            });
        if let Some(more) = tokens {
            let sum = day.tokens.get_or_insert_default();
            for (sum, more) in sum.iter_mut().zip(more) {
                *sum = sum.saturating_add(more);
            }
        }
        if let Some(cost) = cost {
            *day.cost.get_or_insert_default() += cost;
        }
        day.requests = day.requests.saturating_add(calls);
    }
}

/// Every result of every bucket, of one page, or of a list of pages.
fn buckets(text: &str, start: impl Fn(&Value) -> Option<i64>) -> anyhow::Result<Vec<(i64, Value)>> {
    let file: Value = serde_json::from_str(text).context("the file is not JSON")?;
    let pages = match file {
        Value::Array(pages) => pages,
        page => vec![page],
    };
    let mut found = Vec::new();
    for page in &pages {
        let data = page["data"]
            .as_array()
            .context("a page has no list `data`")?;
        for bucket in data {
            let at = start(bucket).context("a bucket has no start")?;
            let results = bucket["results"]
                .as_array()
                .context("a bucket has no list `results`")?;
            found.extend(results.iter().map(|result| (at, result.clone())));
        }
    }
    Ok(found)
}

fn count(result: &Value, name: &str) -> i64 {
    result[name].as_i64().unwrap_or(0)
}

fn openai(lines: &mut Lines<'_>, format: Format, at: i64, result: &Value) -> anyhow::Result<()> {
    if format == Format::OpenaiUsage {
        let tokens = [
            count(result, "input_tokens"),
            count(result, "input_cached_tokens"),
            count(result, "output_tokens"),
        ];
        let model = result["model"].as_str().unwrap_or("unknown");
        lines.add(
            at,
            model,
            Some(tokens),
            count(result, "num_model_requests"),
            None,
        );
        return Ok(());
    }
    let amount = &result["amount"];
    usd(amount["currency"].as_str())?;
    let cost = nano(&amount["value"], 0)?;
    // A line item reads `gpt-5-mini-2025-08-07, input`.
    let item = result["line_item"].as_str().unwrap_or("unknown");
    let model = item.split_once(',').map_or(item, |(model, _)| model);
    lines.add(at, model.trim(), None, 0, Some(cost));
    Ok(())
}

fn anthropic(lines: &mut Lines<'_>, format: Format, at: i64, result: &Value) -> anyhow::Result<()> {
    let model = result["model"].as_str().or(result["description"].as_str());
    let model = model.unwrap_or("unknown");
    if format == Format::AnthropicUsage {
        let written = &result["cache_creation"];
        let read = count(result, "cache_read_input_tokens");
        let prompt = count(result, "uncached_input_tokens")
            .saturating_add(read)
            .saturating_add(count(written, "ephemeral_5m_input_tokens"))
            .saturating_add(count(written, "ephemeral_1h_input_tokens"));
        lines.add(
            at,
            model,
            Some([prompt, read, count(result, "output_tokens")]),
            0,
            None,
        );
        return Ok(());
    }
    usd(result["currency"].as_str())?;
    // Amounts are in cents.
    lines.add(at, model, None, 0, Some(nano(&result["amount"], 2)?));
    Ok(())
}

fn usd(currency: Option<&str>) -> anyhow::Result<()> {
    match currency {
        Some(code) if !code.eq_ignore_ascii_case("usd") => {
            bail!("amounts are in {code}, not in USD")
        }
        _ => Ok(()),
    }
}

/// A decimal amount, written as text or as a number, of which `places` stand behind a whole dollar.
fn nano(value: &Value, places: u32) -> anyhow::Result<NanoUsd> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => bail!("`{other}` is not an amount"),
    };
    let pico = decimal(&text, 12_u32.saturating_sub(places))
        .with_context(|| format!("`{text}` is not an amount"))?;
    half_even(pico, 1_000)
        .map(NanoUsd)
        .with_context(|| format!("`{text}` is too much"))
}

/// A decimal, perhaps with an exponent, times ten to the `places`; digits beyond that are rounded.
pub(crate) fn decimal(text: &str, places: u32) -> Option<i128> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, digits),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{part}");
    if all.is_empty() || all.len() > 36 || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i128 = all.parse().ok()?;
    let shift = i32::try_from(places).ok()?.checked_add(exponent)?;
    let shift = shift.checked_sub(i32::try_from(part.len()).ok()?)?;
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let scaled = if shift >= 0 {
        value.checked_mul(power?)?
    } else {
        power.map_or(Some(0), |by| half_even(value, by).map(i128::from))?
    };
    scaled.checked_mul(sign)
}

#[cfg(test)]
mod tests;
