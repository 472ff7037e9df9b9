//! Histograms of calls and attempts, summed up from the start of the exporter.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;
use std::time::Duration;

use meter::Outcome;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric,
};

use super::call::{Attempt, Ended};
use super::semconv::{self as name, Instrument};
use super::spans::pair;
use crate::clock::unix_ns;
use crate::upstream::Endpoint;

/// Series of a histogram, as OpenTelemetry bounds them; what comes beyond is counted in one.
const MOST_SERIES: usize = 2_000;

/// What a series is of. Names of tenants are none of it: there may be any number of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Series {
    operation: &'static str,
    provider: &'static str,
    asked: Arc<str>,
    answered: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    host: Option<(Arc<str>, u16)>,
    tier: &'static str,
    error: Option<String>,
    tokens: Option<&'static str>,
}

impl Series {
    fn of(attempt: &Attempt) -> Self {
        let (held, endpoint) = (&attempt.entry.held, &attempt.endpoint);
        let dialect = endpoint.dialect.name();
        let error = attempt.error();
        let is_answered = error.is_none() || !attempt.entry.usage.is_empty();
        Self {
            operation: name::operation(dialect),
            provider: name::provider(dialect),
            asked: Arc::clone(&held.model),
            answered: is_answered.then(|| Arc::clone(&held.model)),
            endpoint: Some(Arc::clone(&endpoint.name)),
            host: Some(host(endpoint)),
            tier: held.tier.as_str(),
            error,
            tokens: None,
        }
    }

    /// That of a whole call, which its caller has asked a model or a word of the router for.
    fn of_call(ended: &Ended) -> Self {
        let last = ended.last.as_ref();
        let is_answered = ended.refused.is_none();
        Self {
            operation: name::operation(ended.dialect),
            provider: last.map_or("", |it| name::provider(it.endpoint.dialect.name())),
            asked: last.map_or_else(Arc::default, |it| Arc::clone(&it.entry.held.requested)),
            answered: last
                .filter(|_| is_answered)
                .map(|it| Arc::clone(&it.entry.held.model)),
            endpoint: None,
            host: None,
            tier: last.map_or("", |it| it.entry.held.tier.as_str()),
            error: ended.error(),
            tokens: None,
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut told = Vec::with_capacity(10);
        let mut text = |key: &str, value: &str| {
            if !value.is_empty() {
                told.push(pair(key, Value::StringValue(value.to_owned())));
            }
        };
        text(name::OPERATION, self.operation);
        text(name::PROVIDER, self.provider);
        text(name::REQUESTED, &self.asked);
        text(name::MODEL, self.answered.as_deref().unwrap_or_default());
        text(name::ERROR, self.error.as_deref().unwrap_or_default());
        text(name::TOKEN_KIND, self.tokens.unwrap_or_default());
        text(
            "pareto.endpoint",
            self.endpoint.as_deref().unwrap_or_default(),
        );
        text("pareto.tier", self.tier);
        if let Some((host, port)) = &self.host {
            text(name::HOST, host);
            told.push(pair(name::PORT, Value::IntValue(i64::from(*port))));
        }
        told
    }
}

fn host(endpoint: &Endpoint) -> (Arc<str>, u16) {
    let (host, port) = endpoint.address();
    (Arc::from(host), port)
}

/// One series of a histogram.
#[derive(Debug, Default)]
struct Counted {
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
    least: f64,
    most: f64,
}

impl Counted {
    fn take(&mut self, value: f64, bounds: &[f64]) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; bounds.len() + 1];
            (self.least, self.most) = (value, value);
        }
        // A bound belongs to the bucket below it.
        let place = bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += value;
        (self.least, self.most) = (self.least.min(value), self.most.max(value));
    }
}

/// All series of a histogram; `None` is for those beyond [`MOST_SERIES`].
#[derive(Debug)]
struct Figure {
    instrument: &'static Instrument,
    series: HashMap<Option<Series>, Counted>,
}

impl Figure {
    fn new(instrument: &'static Instrument) -> Self {
        let series = HashMap::new();
        Self { instrument, series }
    }

    fn take(&mut self, series: &Series, value: f64) {
        let is_full = self.series.len() >= MOST_SERIES;
        let counted = match self.series.entry(Some(series.clone())) {
            Place::Occupied(known) => known.into_mut(),
            Place::Vacant(room) if !is_full => room.insert(Counted::default()),
            Place::Vacant(_) => self.series.entry(None).or_default(),
        };
        counted.take(value, self.instrument.bounds);
    }

    fn metric(&self, (began_ns, now_ns): (u64, u64)) -> Metric {
        let point = |(series, counted): (&Option<Series>, &Counted)| HistogramDataPoint {
            attributes: match series {
                Some(series) => series.attributes(),
                None => vec![pair(name::OVERFLOW, Value::BoolValue(true))],
            },
            start_time_unix_nano: began_ns,
            time_unix_nano: now_ns,
            count: counted.count,
            sum: Some(counted.sum),
            min: Some(counted.least),
            max: Some(counted.most),
            bucket_counts: counted.buckets.clone(),
            explicit_bounds: self.instrument.bounds.to_vec(),
            ..HistogramDataPoint::default()
        };
        Metric {
            name: self.instrument.name.to_owned(),
            description: self.instrument.what.to_owned(),
            unit: self.instrument.unit.to_owned(),
            data: Some(Data::Histogram(Histogram {
                data_points: self.series.iter().map(point).collect(),
                aggregation_temporality: i32::from(AggregationTemporality::Cumulative),
            })),
            ..Metric::default()
        }
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Figures {
    began_ns: u64,
    tokens: Figure,
    attempts: Figure,
    calls: Figure,
    firsts: Figure,
    each: Figure,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            began_ns: unix_ns(),
            tokens: Figure::new(&name::TOKENS),
            attempts: Figure::new(&name::ATTEMPT_TIME),
            calls: Figure::new(&name::CALL_TIME),
            firsts: Figure::new(&name::FIRST_TOKEN),
            each: Figure::new(&name::EACH_TOKEN),
        }
    }

    /// An attempt was settled. Its tokens are those of the ledger, whoever counted them.
    pub(super) fn settled(&mut self, attempt: &Attempt) {
        let (entry, usage) = (&attempt.entry, &attempt.entry.usage);
        let mut series = Series::of(attempt);
        self.attempts.take(&series, attempt.took.as_secs_f64());
        if !attempt.gives_way && entry.outcome == Outcome::Completed && entry.held.stream {
            self.flowed(attempt, &series);
        }
        if usage.is_empty() {
            return;
        }
        for (kind, tokens) in [("input", usage.prompt()), ("output", usage.answer())] {
            series.tokens = Some(kind);
            self.tokens.take(&series, number(tokens));
        }
    }

    /// A stream was delivered to its end.
    fn flowed(&mut self, attempt: &Attempt, series: &Series) {
        let Some(ms) = attempt.entry.first_byte_ms else {
            return;
        };
        let first = Duration::from_millis(u64::from(ms));
        self.firsts.take(series, first.as_secs_f64());
        let behind = attempt.entry.usage.answer().saturating_sub(1);
        if behind > 0 {
            let flowed = attempt.total.saturating_sub(first).as_secs_f64();
            self.each.take(series, flowed / number(behind));
        }
    }

    /// A call has ended.
    pub(super) fn ended(&mut self, ended: &Ended) {
        if !ended.is_inner {
            self.calls
                .take(&Series::of_call(ended), ended.took.as_secs_f64());
        }
    }

    /// What has been counted so far; of what never came there is nothing.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let span = (self.began_ns, unix_ns());
        let all = [
            &self.tokens,
            &self.attempts,
            &self.calls,
            &self.firsts,
            &self.each,
        ];
        let told = all.into_iter().filter(|it| !it.series.is_empty());
        told.map(|it| it.metric(span)).collect()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a histogram is for looking at, and exact up to 2^53 tokens"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(model: &str) -> Series {
        Series {
            operation: "chat",
            provider: "openai",
            asked: Arc::from(model),
            answered: None,
            endpoint: None,
            host: None,
            tier: "fast",
            error: None,
            tokens: None,
        }
    }

    #[test]
    fn a_value_on_a_bound_is_counted_below_it_and_one_beyond_all_in_the_last() {
        let mut figure = Figure::new(&name::TOKENS);
        for value in [0.0, 1.0, 1.5, 4.0, 1e9] {
            figure.take(&series("a"), value);
        }
        let counted = figure.series.values().next().expect("a series");
        assert_eq!(counted.buckets.get(..3), Some(&[2, 2, 0][..]));
        assert_eq!(counted.buckets.last(), Some(&1));
        assert_eq!(counted.buckets.len(), name::TOKENS.bounds.len() + 1);
        assert_eq!((counted.count, counted.least, counted.most), (5, 0.0, 1e9));
    }

    #[test]
    fn what_has_no_series_any_more_is_counted_in_one() {
        let mut figure = Figure::new(&name::TOKENS);
        for n in 0..MOST_SERIES + 5 {
            figure.take(&series(&n.to_string()), 1.0);
        }
        assert_eq!(figure.series.len(), MOST_SERIES + 1);
        assert_eq!(figure.series.get(&None).map(|it| it.count), Some(5));
    }
}
