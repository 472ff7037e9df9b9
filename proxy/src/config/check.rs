//! What must hold between the parts of a configuration. Each finding is a path and a message.

use std::collections::HashSet;

use http::Uri;

use super::problem::nearest;
use super::{Breaker, Concurrency, Config, Endpoint, Model, Upstream};

type Findings = Vec<(String, String)>;

/// Everything wrong with a configuration that reads well.
pub(super) fn all(config: &Config) -> Findings {
    let mut found = Findings::new();
    server(config, &mut found);
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
    }
    let names: Vec<&str> = config.models.iter().map(|it| it.name.as_str()).collect();
    for wrong in meter::budget::check(&config.budgets, &config.rate_limits, &names) {
        found.push((wrong.place, wrong.message));
    }
    policy(config, &mut found);
    for (index, webhook) in config.webhooks.iter().enumerate() {
        let is_http = webhook.url.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
        });
        if !is_http {
            let message = format!("`{}` is no http address", webhook.url);
            found.push((format!("webhook[{index}].url"), message));
        }
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
    if let Err(error) = meter::SellBook::read(&config.sells) {
        found.push(("sell[0]".to_owned(), error.to_string()));
    }
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

fn server(config: &Config, found: &mut Findings) {
    let server = &config.server;
    if server.tls_cert.is_some() != server.tls_key.is_some() {
        let message = "TLS needs both tls_cert and tls_key; give the other file too".to_owned();
        found.push(("server".to_owned(), message));
    }
    if server.listen == config.admin.listen && server.listen.port() != 0 {
        let message = "callers and operators need two addresses; give admin another port";
        found.push(("admin.listen".to_owned(), message.to_owned()));
    }
    if !config.admin.listen.ip().is_loopback() && config.admin.token.is_none() {
        let message = "beyond loopback the admin listener needs `token`; set one";
        found.push(("admin.listen".to_owned(), message.to_owned()));
    }
    for (key, value) in [
        ("limits.body_bytes", config.limits.body_bytes),
        ("limits.headers", config.limits.headers),
        ("limits.connections", config.limits.connections),
        ("limits.requests", config.limits.requests),
        ("limits.in_flight", config.limits.in_flight),
        ("upstream.reply_bytes", config.upstream.reply_bytes),
    ] {
        if value == 0 {
            found.push((key.to_owned(), "must be above 0".to_owned()));
        }
    }
    upstream(&config.upstream, found);
    if config.limits.head_bytes < 8_192 {
        let message = "must be at least 8192; real clients send heads of some kilobytes";
        found.push(("limits.head_bytes".to_owned(), message.to_owned()));
    }
    if config
        .log
        .level
        .parse::<tracing_subscriber::filter::EnvFilter>()
        .is_err()
    {
        let message = format!(
            "`{}` is not a level; write error, warn, info or debug",
            config.log.level
        );
        found.push(("log.level".to_owned(), message));
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
    if endpoint.concurrency == Some(Concurrency::Count(0)) {
        say("concurrency", "must be above 0".to_owned());
    }
    if let Some(name) = &endpoint.deadline_header
        && http::HeaderName::from_bytes(name.as_bytes()).is_err()
    {
        let message = format!("`{name}` is no name of a header; write x-request-timeout-ms");
        say("deadline_header", message);
    }
    let mut secrets = HashSet::new();
    for key in endpoint.key.iter().chain(&endpoint.keys) {
        if key.expose().is_empty() || !secrets.insert(key.expose()) {
            let message = "a key is empty or stands twice; leave it out".to_owned();
            say("keys", message);
        }
    }
    let url = endpoint.url.parse::<Uri>().ok();
    let sound = url.as_ref().is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && !url
                .authority()
                .is_some_and(|authority| authority.as_str().contains('@'))
    });
    if !sound {
        say(
            "url",
            format!(
                "`{}` is not an address; write https://HOST/v1",
                endpoint.url
            ),
        );
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
