//! What must hold between the parts of a configuration. Each finding is a path and a message.

use std::collections::HashSet;

use http::HeaderValue;

use super::address::{address, clash, has_user, masked};
use super::problem::nearest;
use super::{Breaker, Concurrency, Config, Endpoint, Model, Secret, Upstream, Webhook, bounds};

type Findings = Vec<(String, String)>;

/// Everything wrong with a configuration that reads well.
pub(super) fn all(config: &Config) -> Findings {
    let mut found = Findings::new();
    server(config, &mut found);
    found.extend(bounds::problems(config));
    secrets(config, &mut found);
    found.extend(config.request_log.check());
    found.extend(config.otlp.problems());
    let mut names = HashSet::new();
    for (index, one) in config.endpoints.iter().enumerate() {
        endpoint(index, one, &mut names, &mut found);
    }
    if config.models.is_empty() {
        let message = "no [[model]]; name at least one model of an [[endpoint]]".to_owned();
        found.push((String::new(), message));
    }
    let mut names = HashSet::new();
    for (index, one) in config.models.iter().enumerate() {
        model(index, one, config, &mut names, &mut found);
        figures(index, one, &mut found);
    }
    let names: Vec<&str> = config.models.iter().map(|it| it.name.as_str()).collect();
    for wrong in meter::budget::check(&config.budgets, &config.rate_limits, &names) {
        found.push((wrong.place, wrong.message));
    }
    policy(config, &mut found);
    for (index, one) in config.webhooks.iter().enumerate() {
        webhook(index, one, &mut found);
    }
    tasks(config, &mut found);
    found.extend(config.overload.problems());
    if let Some(name) = config.routing.step.unsound() {
        let message = format!("`{name}` must be log-odds from -10 to 10");
        found.push((format!("routing.step.{name}"), message));
    }
    prices(config, &mut found);
    found
}

/// What tasks go by.
fn tasks(config: &Config, found: &mut Findings) {
    for (key, message) in config.orchestrator.problems() {
        found.push((format!("orchestrator.{key}"), message));
    }
    let mut names = HashSet::new();
    for (index, server) in config.mcps.iter().enumerate() {
        for message in server.validate() {
            found.push((format!("mcp[{index}]"), message));
        }
        if !names.insert(&server.name) {
            let message = format!("there are two servers `{}`", server.name);
            found.push((format!("mcp[{index}].name"), message));
        }
    }
    let mut names = HashSet::new();
    for (index, webhook) in config.webhooks.iter().enumerate() {
        let Some(name) = &webhook.name else { continue };
        if name.is_empty() || !names.insert(name) {
            let message = format!("`{name}` is empty or another webhook's name");
            found.push((format!("webhook[{index}].name"), message));
        }
    }
}

/// What rules, classes and labels name must be there.
fn policy(config: &Config, found: &mut Findings) {
    let models: Vec<&str> = config.models.iter().map(|it| it.name.as_str()).collect();
    let regions: Vec<&str> = config
        .endpoints
        .iter()
        .filter_map(|it| it.region.as_deref())
        .collect();
    let labels: Vec<_> = config.models.iter().map(|it| it.label.as_deref()).collect();
    let names = router::check::Names {
        models: &models,
        regions: &regions,
        labels: &labels,
    };
    for wrong in router::check::check(&config.policy, &config.routing, names) {
        found.push((wrong.place, wrong.message));
    }
}

/// Prices are read now, so that a model never turns out unpriced only when it is called.
fn prices(config: &Config, found: &mut Findings) {
    sells(&config.sells, found);
    let listed = crate::runtime::listed_prices(config);
    let listed = listed.and_then(|document| Ok(meter::PriceBook::of(&document)?));
    let mut book = match listed {
        Ok(book) => book.with_conflicts(config.meter.on_conflict),
        Err(error) => {
            found.push(("meter.price_book".to_owned(), error.to_string()));
            return;
        }
    };
    for (index, own) in config.prices.iter().enumerate() {
        book = match book.with_overrides(std::slice::from_ref(own)) {
            Ok(book) => book,
            Err(error) => {
                found.push((format!("price[{index}]"), error.to_string()));
                return;
            }
        };
    }
    for (index, model) in config.models.iter().enumerate() {
        let Some(price) = model.price.as_ref().filter(|price| !book.has(price)) else {
            continue;
        };
        let remedy = match nearest(price, book.ids()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add a [[price]] with this id".to_owned(),
        };
        let message = format!("price `{price}` is not in the price book; {remedy}");
        found.push((format!("model[{index}].price"), message));
    }
}

/// Each plan by itself, and then what it takes from those before it.
fn sells(plans: &[meter::config::SellConfig], found: &mut Findings) {
    let before = found.len();
    for (index, plan) in plans.iter().enumerate() {
        if let Err(error) = meter::SellBook::read(std::slice::from_ref(plan)) {
            found.push((format!("sell[{index}]"), error.to_string()));
        }
    }
    if found.len() > before {
        return;
    }
    let read = |count: usize| meter::SellBook::read(plans.get(..count).unwrap_or_default()).err();
    if let Some((count, error)) = (1..=plans.len()).find_map(|count| Some((count, read(count)?))) {
        found.push((
            format!("sell[{}]", count.saturating_sub(1)),
            error.to_string(),
        ));
    }
}

fn server(config: &Config, found: &mut Findings) {
    let server = &config.server;
    if server.tls_cert.is_some() != server.tls_key.is_some() {
        let message = "TLS needs both tls_cert and tls_key; give the other file too".to_owned();
        found.push(("server".to_owned(), message));
    }
    if clash(server.listen, config.admin.listen) {
        let message = "callers and operators need two addresses; give admin another port";
        found.push(("admin.listen".to_owned(), message.to_owned()));
    }
    if !config.admin.listen.ip().is_loopback() && config.admin.token.is_none() {
        let message = "beyond loopback the admin listener needs `token`; set one";
        found.push(("admin.listen".to_owned(), message.to_owned()));
    }
    upstream(&config.upstream, found);
    level(&config.log.level, found);
    let store = &config.store;
    if store.dir.as_os_str().is_empty() {
        let message = "is empty; write the path of a folder of its own".to_owned();
        found.push(("store.dir".to_owned(), message));
    }
    if store.postgres.as_ref().is_some_and(|it| it.0.is_empty()) {
        let message = "is empty; write postgres://USER@HOST/DATABASE, or leave it out for a file in store.dir";
        found.push(("store.postgres".to_owned(), message.to_owned()));
    }
}

/// What is logged. The library takes a word that is no level for the name of a part of the program, of which there is
/// none, and nothing would be logged at all.
fn level(level: &str, found: &mut Findings) {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| LEVELS.iter().any(|it| it.eq_ignore_ascii_case(word));
    let is_known = |directive: &str| match directive.rsplit_once('=') {
        Some((part, word)) => !part.is_empty() && is_level(word),
        None => is_level(directive),
    };
    let wrong = level.split(',').map(str::trim).find(|it| !is_known(it));
    let filter = level.parse::<tracing_subscriber::filter::EnvFilter>();
    if wrong.is_none() && filter.is_ok() {
        return;
    }
    let wrong = wrong.unwrap_or(level);
    let word = wrong.rsplit_once('=').map_or(wrong, |(_, word)| word);
    let meant = nearest(&word.to_ascii_lowercase(), LEVELS.into_iter());
    let meant = meant.map_or_else(String::new, |it| format!("; did you mean {it}?"));
    let message = format!(
        "`{wrong}` is not a level; write {}, or directives such as info,proxy=debug{meant}",
        LEVELS.join(", ")
    );
    found.push(("log.level".to_owned(), message));
}

/// Secrets that are empty: they keep nobody out, and sign for anybody.
fn secrets(config: &Config, found: &mut Findings) {
    let admin = &config.admin;
    let own = |it: &Option<Secret>| it.as_ref().map(|it| it.expose().trim().is_empty());
    let tasks = config.orchestrator.secret.as_ref();
    for (key, is_empty) in [
        ("admin.token", own(&admin.token)),
        ("admin.finance_token", own(&admin.finance_token)),
        ("keys.pepper", own(&config.keys.pepper)),
        (
            "orchestrator.secret",
            tasks.map(|it| it.expose().trim().is_empty()),
        ),
    ] {
        if is_empty == Some(true) {
            let message = "is empty; give it a value, or leave it out to have one made".to_owned();
            found.push((key.to_owned(), message));
        }
    }
    for (index, webhook) in config.webhooks.iter().enumerate() {
        if webhook.secret.expose().trim().is_empty() {
            let message = "is empty: anybody could sign with it; give it a value".to_owned();
            found.push((format!("webhook[{index}].secret"), message));
        }
    }
    let tokens = (admin.token.as_ref(), admin.finance_token.as_ref());
    if let (Some(operator), Some(finance)) = tokens
        && operator.expose() == finance.expose()
    {
        let message = "is the operators' token too, so who may only read could change everything; give it another value";
        found.push(("admin.finance_token".to_owned(), message.to_owned()));
    }
}

/// What the care for upstreams goes by.
fn upstream(upstream: &Upstream, found: &mut Findings) {
    let Breaker {
        failures,
        least_success,
        least_calls,
        rest_ms,
        most_rest_ms,
        most_resting,
        closing,
    } = upstream.breaker;
    for (key, value) in [
        ("failures", failures),
        ("least_calls", least_calls),
        ("closing", closing),
    ] {
        if value == 0 {
            let key = format!("upstream.breaker.{key}");
            found.push((key, "must be above 0".to_owned()));
        }
    }
    for (key, percent) in [
        ("breaker.least_success", least_success),
        ("breaker.most_resting", most_resting),
        ("retries.percent", upstream.retries.percent),
    ] {
        if percent > 100 {
            let message = "must be at most 100 percent".to_owned();
            found.push((format!("upstream.{key}"), message));
        }
    }
    if rest_ms == 0 || rest_ms > most_rest_ms {
        let message = "must be above 0 and at most most_rest_ms".to_owned();
        found.push(("upstream.breaker.rest_ms".to_owned(), message));
    }
}

fn endpoint<'a>(
    index: usize,
    endpoint: &'a Endpoint,
    names: &mut HashSet<&'a str>,
    found: &mut Findings,
) {
    let mut say =
        |key: &str, message: String| found.push((format!("endpoint[{index}].{key}"), message));
    if !names.insert(&endpoint.name) {
        say(
            "name",
            format!("endpoint `{}` stands twice; rename one", endpoint.name),
        );
    }
    if wire::dialect::named(&endpoint.dialect).is_none() {
        let known: Vec<_> = wire::dialect::ALL
            .iter()
            .map(|dialect| dialect.name())
            .collect();
        let message = match nearest(&endpoint.dialect, known.iter().copied()) {
            Some(near) => format!(
                "unknown dialect `{}`; did you mean `{near}`?",
                endpoint.dialect
            ),
            None => format!(
                "unknown dialect `{}`; write {}",
                endpoint.dialect,
                known.join(" or ")
            ),
        };
        say("dialect", message);
    }
    if let Some(Concurrency::Count(count)) = endpoint.concurrency
        && !(1..=1_000_000).contains(&count)
    {
        let message = format!("{count} is out of bounds; write 1 to 1000000");
        say("concurrency", message);
    }
    if let Some(message) = endpoint.cap_field.as_deref().and_then(uncapped) {
        say("cap_field", message);
    }
    if let Some(name) = &endpoint.deadline_header
        && http::HeaderName::from_bytes(name.as_bytes()).is_err()
    {
        let message = format!("`{name}` is no name of a header; write x-request-timeout-ms");
        say("deadline_header", message);
    }
    for (place, message) in keys(endpoint) {
        say(place, message.to_owned());
    }
    if endpoint.tls_ca.is_some() && !endpoint.url.starts_with("https:") {
        let message =
            "only an https address has a certificate; leave it out, or write https in url";
        say("tls_ca", message.to_owned());
    }
    let sound = address(&endpoint.url)
        .is_some_and(|url| url.query().is_none() && !url.authority().is_some_and(has_user));
    if !sound {
        say(
            "url",
            format!(
                "`{}` is not an address; write https://HOST/v1",
                masked(&endpoint.url)
            ),
        );
    }
}

/// Keys that no call could be sent with.
fn keys(endpoint: &Endpoint) -> Vec<(&'static str, &'static str)> {
    let mut seen = HashSet::new();
    let own = endpoint.key.iter().map(|key| ("key", key.expose()));
    let more = endpoint.keys.iter().map(|key| ("keys", key.expose()));
    own.chain(more)
        .filter_map(|(place, key)| {
            if key.trim().is_empty() || !seen.insert(key) {
                Some((place, "a key is empty or stands twice; leave it out"))
            } else if HeaderValue::from_str(key).is_err() {
                let what =
                    "a key has characters that no header can carry; look for a line break in it";
                Some((place, what))
            } else {
                None
            }
        })
        .collect()
}

/// Why no cap can be written to a field.
fn uncapped(field: &str) -> Option<String> {
    const OTHERS: [&str; 26] = [
        "model",
        "messages",
        "input",
        "prompt",
        "stream",
        "stream_options",
        "system",
        "instructions",
        "tools",
        "tool_choice",
        "temperature",
        "top_p",
        "top_k",
        "n",
        "stop",
        "stop_sequences",
        "user",
        "metadata",
        "response_format",
        "text",
        "reasoning",
        "reasoning_effort",
        "thinking",
        "store",
        "seed",
        "logprobs",
    ];
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if field.is_empty() || !field.bytes().all(is_word) {
        return Some(format!("`{field}` is no name of a field; write max_tokens"));
    }
    let is_other = OTHERS.contains(&field);
    is_other.then(|| format!("`{field}` of a call means something else; write max_tokens"))
}

/// What webhooks can be told of, beside tasks that name them.
const TOPICS: [&str; 3] = ["budget.threshold", "budget.forecast", "usage"];

fn webhook(index: usize, webhook: &Webhook, found: &mut Findings) {
    if address(&webhook.url).is_none() {
        let message = format!("`{}` is no http address", masked(&webhook.url));
        found.push((format!("webhook[{index}].url"), message));
    }
    for (place, topic) in webhook.topics.iter().enumerate() {
        let is_told = |told: &&str| match topic.strip_suffix('*') {
            Some(start) => told.starts_with(start),
            None => told == topic,
        };
        if !TOPICS.iter().any(is_told) {
            let message = format!(
                "nothing is told of `{topic}`; write {}, or budget.*",
                TOPICS.join(", ")
            );
            found.push((format!("webhook[{index}].topics[{place}]"), message));
        }
    }
}

fn model<'a>(
    index: usize,
    model: &'a Model,
    config: &Config,
    names: &mut HashSet<&'a str>,
    found: &mut Findings,
) {
    let mut say =
        |key: &str, message: String| found.push((format!("model[{index}].{key}"), message));
    if !names.insert(&model.name) {
        say(
            "name",
            format!("model `{}` stands twice; rename one", model.name),
        );
    }
    if matches!(model.name.as_str(), "auto" | "fast" | "deep" | "") {
        say(
            "name",
            format!(
                "`{}` is a word of the router; give the model another name",
                model.name
            ),
        );
    }
    if http::HeaderValue::from_str(&model.name).is_err() || !model.name.is_ascii() {
        say(
            "name",
            format!(
                "`{}` can not stand in a header; use plain letters",
                model.name
            ),
        );
    }
    if model.endpoint.is_empty() {
        say("endpoint", "name at least one [[endpoint]]".to_owned());
    }
    let mut regions = Vec::new();
    for name in &model.endpoint {
        let Some(found) = config.endpoints.iter().find(|it| it.name == *name) else {
            let known = config
                .endpoints
                .iter()
                .map(|endpoint| endpoint.name.as_str());
            let message = match nearest(name, known) {
                Some(near) => format!("no endpoint `{name}`; did you mean `{near}`?"),
                None => format!("no endpoint `{name}`; add an [[endpoint]] with this name"),
            };
            say("endpoint", message);
            continue;
        };
        let one = (&found.dialect, &found.region);
        let differs = |other: &(&String, &Option<String>)| other.0 == one.0 && other.1 != one.1;
        if regions.iter().any(differs) {
            let message = format!(
                "endpoints of dialect `{}` in two regions; make the one in the other region a model of its own",
                found.dialect
            );
            say("endpoint", message);
        }
        regions.push(one);
    }
}

/// What a model is said to take and give.
fn figures(index: usize, model: &Model, found: &mut Findings) {
    let mut say =
        |key: &str, message: String| found.push((format!("model[{index}].{key}"), message));
    // More than any model has, and little enough to be multiplied by any price.
    let most = 1_000_000_000;
    for (key, tokens) in [("max_output", model.max_output), ("context", model.context)] {
        if tokens.is_some_and(|tokens| !(1..=most).contains(&tokens)) {
            say(
                key,
                format!("must be 1 to {most} tokens; leave it out where it is not known"),
            );
        }
    }
    if model.upstream_model.as_ref().is_some_and(String::is_empty) {
        say(
            "upstream_model",
            "is empty; leave it out where it is the name".to_owned(),
        );
    }
}
