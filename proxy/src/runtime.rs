//! What a configuration turns into: models with their endpoints, prices and health. Replaced as a
//! whole by a reload; calls under way keep the one they began with.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use meter::price::{Document, ReadBookError, STANDARD};
use meter::tokens::{Factor, Tokenizer};
use meter::{PriceBook, Rates, SellBook};
use wire::dialect::ThinkingForm;
use wire::{Dialect, Tier};

use crate::care::{Group, Health, Standing, seed};
use crate::config::{self, Config, Limits, Upstream};
use crate::upstream::Endpoint;

/// The embedded price book; see its `sources` for origin and licences.
const PRICES: &str = include_str!("../../config/prices.json");

/// A configuration in force.
#[derive(Debug)]
pub struct Runtime {
    pub(crate) policy: router::Policy,
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) book: PriceBook,
    /// The first digits of the book's version, which every entry keeps.
    pub(crate) book_version: Arc<str>,
    pub(crate) sell: Arc<SellBook>,
    pub(crate) limits: Limits,
    pub(crate) upstream: Upstream,
    pub(crate) routing: router::Config,
    pub(crate) meter: meter::Config,
    pub(crate) policy_config: router::config::PolicyConfig,
    pub(crate) context: config::Context,
    /// The class of calls that no rule gives another, and the version of the classifier's weights.
    pub(crate) default_class: Arc<str>,
    pub(crate) weights: Arc<str>,
}

/// A model at an endpoint that calls can go to. Its place in the list is its place in the policy.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) tier: Tier,
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) endpoint: Arc<Endpoint>,
    /// The same at further endpoints of this dialect.
    pub(crate) also: Vec<Arc<Target>>,
    /// A number of its own, the same on all nodes.
    pub(crate) seed: u64,
    pub(crate) upstream_model: String,
    pub(crate) price: Option<String>,
    pub(crate) max_output: Option<u64>,
    /// Another is asked beside it when it takes long.
    pub(crate) hedge: bool,
    pub(crate) thinking: Option<ThinkingForm>,
    /// The longest prompt it takes, in tokens, where the price book knows it.
    pub(crate) context: Option<u64>,
    /// What it can not do, and the place of the most sensitive label that it may see.
    pub(crate) lacks: router::Needs,
    pub(crate) label: Option<usize>,
    pub(crate) health: Arc<Health>,
    /// How each of the endpoint's keys stands with it.
    pub(crate) standings: Arc<[Standing]>,
    /// The models that stand in for each other.
    pub(crate) group: Arc<Group>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// The tokenizer was named as the model's own, so its counts bound the provider's.
    pub(crate) tokenizer_is_its_own: bool,
    /// What the model's counts are of ours.
    pub(crate) factor: Arc<Factor>,
}

/// The tokens of a text by the most common encoding, for figures that nobody reports.
pub(crate) fn count(text: &str) -> u64 {
    Tokenizer::o200k().count(text)
}

/// The lane of the price book that a call's own word for it means.
pub(crate) fn lane(asked: &str) -> &str {
    match asked {
        "flex" | "priority" | "batch" => asked,
        _ => STANDARD,
    }
}

/// A configuration that reads well but can not be put to work.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("price book {path}: {what}")]
    Book { path: String, what: String },
    #[error(transparent)]
    Prices(#[from] ReadBookError),
    #[error(transparent)]
    Sell(#[from] meter::sell::ReadSellError),
    #[error(transparent)]
    Policy(#[from] router::PolicyError),
    #[error("endpoint `{0}`: {1}")]
    Endpoint(String, String),
    #[error("model `{0}`: tokenizer `{1}`: {2}")]
    Tokenizer(String, String, String),
}

/// The price book that `config` asks for, with prices of one's own before it.
pub fn price_book(config: &Config) -> Result<PriceBook, BuildError> {
    let book = PriceBook::of(&listed_prices(config)?)?.with_conflicts(config.meter.on_conflict);
    Ok(book.with_overrides(&config.prices)?)
}

/// The document of list prices that `config` asks for.
pub(crate) fn listed_prices(config: &Config) -> Result<Document, BuildError> {
    match &config.meter.price_book {
        None => Ok(Document::read(PRICES)?),
        Some(path) => document(path),
    }
}

/// The document of prices at `path`.
pub(crate) fn document(path: &Path) -> Result<Document, BuildError> {
    let failed = |what: String| BuildError::Book {
        path: path.display().to_string(),
        what,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Document::read(&text).map_err(|error| failed(error.to_string()))
}

/// The tokenizer of a model, and whether it is known to be its own. OpenAI's models share one; a
/// file stands for itself.
fn tokenizer(model: &config::Model) -> Result<(Arc<Tokenizer>, bool), BuildError> {
    let Some(name) = &model.tokenizer else {
        let own = model
            .price
            .as_ref()
            .is_some_and(|price| price.starts_with("openai/"));
        return Ok((Arc::new(Tokenizer::o200k()), own));
    };
    let failed = |what: String| BuildError::Tokenizer(model.name.clone(), name.clone(), what);
    if let Some(known) = Tokenizer::named(name) {
        return Ok((Arc::new(known), true));
    }
    let json = std::fs::read(name).map_err(|error| {
        failed(format!(
            "{error}; write o200k_base, cl100k_base or the path of a tokenizer.json"
        ))
    })?;
    let own = Tokenizer::read(&json).map_err(|error| failed(error.to_string()))?;
    Ok((Arc::new(own), true))
}

/// How a model's tokens are counted; what was learned of it is kept.
struct Counts {
    tokenizer: Arc<Tokenizer>,
    is_its_own: bool,
    factor: Arc<Factor>,
}

fn counts(model: &config::Model, before: Option<&Runtime>) -> Result<Counts, BuildError> {
    let (tokenizer, is_its_own) = tokenizer(model)?;
    let known = before.and_then(|b| b.targets.iter().find(|t| *t.name == *model.name));
    let factor = known.map(|target| Arc::clone(&target.factor));
    Ok(Counts {
        tokenizer,
        is_its_own,
        factor: factor.unwrap_or_else(|| Arc::new(Factor::new(is_its_own))),
    })
}

impl Target {
    /// A model at one of its endpoints; what `before` knows of its health is kept.
    fn build(
        model: &config::Model,
        endpoint: &Arc<Endpoint>,
        book: &PriceBook,
        before: Option<&Runtime>,
        counts: &Counts,
        labels: &[String],
        group: &Arc<Group>,
    ) -> Self {
        let same = |t: &&Arc<Self>| *t.name == *model.name && t.endpoint.name == endpoint.name;
        let known = before.and_then(|before| before.everywhere().find(same));
        let same_keys = |target: &&Arc<Self>| {
            let keys = target.endpoint.keys.iter().zip(&endpoint.keys);
            target.endpoint.keys.len() == endpoint.keys.len()
                && keys.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let standings = known.filter(same_keys);
        let standings = standings.map(|target| Arc::clone(&target.standings));
        let unknown = || endpoint.keys.iter().map(|_| Standing::default()).collect();
        let price = model.price.as_deref();
        let upstream_model = model.upstream_model.as_ref().unwrap_or(&model.name);
        Self {
            name: Arc::from(model.name.as_str()),
            tier: model.tier,
            dialect: endpoint.dialect,
            endpoint: Arc::clone(endpoint),
            also: Vec::new(),
            seed: seed(&endpoint.name),
            upstream_model: upstream_model.clone(),
            price: model.price.clone(),
            context: model.context.or_else(|| book.max_input(price?)),
            hedge: model.hedge,
            thinking: model.thinking,
            max_output: model.max_output.or_else(|| book.max_output(price?)),
            lacks: model.lacks,
            label: labels
                .iter()
                .position(|it| Some(it) == model.label.as_ref()),
            health: known.map_or_else(Arc::default, |target| Arc::clone(&target.health)),
            standings: standings.unwrap_or_else(unknown),
            group: Arc::clone(group),
            tokenizer: Arc::clone(&counts.tokenizer),
            tokenizer_is_its_own: counts.is_its_own,
            factor: Arc::clone(&counts.factor),
        }
    }
}

impl Runtime {
    /// Builds from a checked configuration; what `before` knows of health is kept by model name.
    pub(crate) fn build(config: &Config, before: Option<&Self>) -> Result<Self, BuildError> {
        let book = price_book(config)?;
        let mut endpoints = HashMap::new();
        for endpoint in &config.endpoints {
            let known = before.and_then(|before| before.endpoint(&endpoint.name));
            let built = Endpoint::build(endpoint, &config.upstream, known)
                .map_err(|what| BuildError::Endpoint(endpoint.name.clone(), what))?;
            endpoints.insert(endpoint.name.as_str(), Arc::new(built));
        }
        let mut targets = Vec::with_capacity(config.models.len());
        let mut groups = HashMap::new();
        for model in &config.models {
            let counts = counts(model, before)?;
            let names = model.endpoint.iter();
            let mut places: Vec<Target> = Vec::new();
            for endpoint in names.filter_map(|name| endpoints.get(name.as_str())) {
                let labels = &config.policy.labels;
                let group = groups
                    .entry((model.tier, endpoint.dialect.converses()))
                    .or_insert_with(|| Arc::new(Group::new(&config.upstream)));
                let target = Target::build(model, endpoint, &book, before, &counts, labels, group);
                let mut first = places.iter_mut();
                match first.find(|it| it.dialect.name() == target.dialect.name()) {
                    Some(first) => first.also.push(Arc::new(target)),
                    None => places.push(target),
                }
            }
            targets.extend(places.into_iter().map(Arc::new));
        }
        for group in groups.values() {
            let all = targets.iter().flat_map(Target::equals);
            let members = all.filter(|it| Arc::ptr_eq(&it.group, group));
            let member =
                |it: &Arc<Target>| (Arc::clone(&it.endpoint.origin), Arc::clone(&it.health));
            group.assemble(members.map(member).collect());
        }
        let models = targets.iter().map(|target| router::Model {
            name: Arc::clone(&target.name),
            tier: target.tier,
            dialect: target.dialect.name(),
            converses: target.dialect.converses(),
            context: target.context,
            region: target.endpoint.region.as_deref().map(Arc::from),
            label: target.label,
            lacks: target.lacks,
        });
        let rules = router::Rules::new(config.policy.rules.clone(), config.policy.labels.clone());
        Ok(Self {
            policy: router::Policy::new(models.collect(), rules)?,
            targets,
            book_version: Arc::from(book.version().get(..12).unwrap_or_default()),
            sell: Arc::new(SellBook::read(&config.sells)?),
            book,
            limits: config.limits.clone(),
            upstream: config.upstream.clone(),
            routing: config.routing.clone(),
            meter: config.meter.clone(),
            policy_config: config.policy.clone(),
            context: config.context.clone(),
            default_class: Arc::from(router::config::DEFAULT_CLASS),
            weights: Arc::from(router::version()),
        })
    }

    /// The endpoint of a name.
    fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        let mut endpoints = self.everywhere().map(|target| &*target.endpoint);
        endpoints.find(|it| *it.name == *name)
    }

    /// Every model at every endpoint; those that `targets` has, each with its equals.
    pub(crate) fn everywhere(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.iter().flat_map(Target::equals)
    }

    /// Every endpoint that a model is at, once.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let mut seen = HashSet::new();
        let all = self.everywhere().map(|target| &*target.endpoint);
        all.filter(move |it| seen.insert(Arc::clone(&it.name)))
    }

    /// Whether the model at a place is healthy, at a time of [`crate::clock::uptime_ms`].
    pub(crate) fn is_usable(&self, place: usize, now_ms: i64) -> bool {
        let target = self.targets.get(place);
        target.is_some_and(|target| target.equals().any(|it| it.is_usable(now_ms)))
    }

    /// The prices of `target` at `now_ms`, in the lane the caller asked for and its endpoint's region.
    pub(crate) fn rates(&self, target: &Target, lane: &str, now_ms: i64) -> Option<Arc<Rates>> {
        let lane = self::lane(lane);
        let (price, region) = (target.price.as_deref()?, target.endpoint.region.as_deref());
        self.book.rates_in(price, lane, region, now_ms).ok()
    }

    /// The prices of the deep tier that savings are measured against: of `target`'s own dialect where
    /// there is one.
    pub(crate) fn deep_rates(
        &self,
        target: &Target,
        lane: &str,
        now_ms: i64,
    ) -> Option<Arc<Rates>> {
        let deep = || {
            let fits =
                |other: &&Arc<Target>| other.dialect.converses() == target.dialect.converses();
            self.targets
                .iter()
                .filter(fits)
                .filter(|other| other.tier == Tier::Deep)
        };
        let own = deep().find(|other| other.dialect.name() == target.dialect.name());
        let deepest = own.or_else(|| deep().next())?;
        self.rates(deepest, lane, now_ms)
    }
}
