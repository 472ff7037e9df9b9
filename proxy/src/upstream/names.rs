//! The addresses behind an endpoint's name. They are asked for anew now and then; while nobody answers, the old
//! ones hold for some minutes.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long an answer holds before the name is asked for again, beside the calls.
const FRESH: Duration = Duration::from_secs(30);
/// And before a call that needs a connection asks itself.
const OLD: Duration = Duration::from_mins(1);
/// How long it holds while nobody answers.
const STALE: Duration = Duration::from_mins(5);
/// How long the answer is waited for beside the calls.
const PATIENCE: Duration = Duration::from_secs(2);
/// An address is gone when no answer had it for so long: some names tell other ones of many with each answer.
const GONE: Duration = Duration::from_mins(1);
/// Addresses that are remembered of a name.
const MOST: usize = 64;

pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Who knows the addresses of names.
pub(super) trait Resolve: Send + Sync {
    /// The addresses of `host` with `port`.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Answer<'a>;
}

/// The system.
#[derive(Debug)]
pub(super) struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Answer<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// A name, and what is known of it.
pub(super) struct Names {
    host: String,
    port: u16,
    /// The address, where the host is one.
    literal: Option<IpAddr>,
    resolver: Arc<dyn Resolve>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those of the last answer, in its order.
    now: Vec<SocketAddr>,
    answered: Option<Instant>,
    /// When somebody asked last, whatever came of it.
    asked: Option<Instant>,
    /// When each address was in an answer last.
    seen: Vec<(SocketAddr, Instant)>,
}

impl Names {
    pub(super) fn new(host: &str, port: u16, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            host: host.to_owned(),
            port,
            literal: host.parse().ok(),
            resolver,
            known: Mutex::default(),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The host with its port.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The addresses to connect to, best first.
    ///
    /// # Errors
    /// When there are none, and have been none lately.
    pub(super) async fn addresses(&self, now: Instant) -> io::Result<Vec<SocketAddr>> {
        if let Some(literal) = self.literal {
            return Ok(vec![SocketAddr::new(literal, self.port)]);
        }
        {
            let known = self.known();
            if known.answered.is_some_and(|at| now - at < OLD) {
                return Ok(known.now.clone());
            }
        }
        let told = self.ask(now).await;
        let known = self.known();
        match told {
            Ok(()) => Ok(known.now.clone()),
            Err(error) => {
                let holds = known.answered.is_some_and(|at| now - at < STALE);
                if holds {
                    Ok(known.now.clone())
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Asks for the addresses anew, if somebody has used them and the last answer is old.
    pub(super) async fn refresh(&self, now: Instant) {
        let is_old = {
            let known = self.known();
            let asked = known.asked.filter(|_| known.answered.is_some());
            asked.is_some_and(|at| now.saturating_duration_since(at) >= FRESH)
        };
        if is_old && self.literal.is_none() {
            // Who does not answer is asked again, and until then the old answer holds.
            let _told = timeout(PATIENCE, self.ask(now)).await;
        }
    }

    /// Addresses that the name had once and has no more.
    pub(super) fn gone(&self) -> Vec<SocketAddr> {
        let known = self.known();
        let Some(answered) = known.answered else {
            return Vec::new();
        };
        let gone = known.seen.iter();
        gone.filter(|(_, at)| answered.saturating_duration_since(*at) >= GONE)
            .map(|(address, _)| *address)
            .collect()
    }

    async fn ask(&self, now: Instant) -> io::Result<()> {
        self.known().asked = Some(now);
        let told = self.resolver.resolve(&self.host, self.port).await?;
        if told.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut known = self.known();
        for address in &told {
            match known.seen.iter_mut().find(|(it, _)| it == address) {
                Some((_, at)) => *at = now,
                None => known.seen.push((*address, now)),
            }
        }
        let more = known.seen.len().saturating_sub(MOST);
        known.seen.sort_unstable_by_key(|(_, at)| *at);
        known.seen.drain(..more);
        known.now = by_turns(told);
        known.answered = Some(now);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses of both families in turns, as they came otherwise: one family may lead nowhere.
fn by_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (like, unlike): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|it| it.is_ipv6() == first_is_v6);
    let (mut like, mut unlike) = (like.into_iter(), unlike.into_iter());
    let mut turns = Vec::new();
    loop {
        let two = [like.next(), unlike.next()];
        if two == [None, None] {
            return turns;
        }
        turns.extend(two.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the answers that it was told to, and none where it was told none.
    #[derive(Debug, Default)]
    struct Told(Mutex<Option<Vec<SocketAddr>>>);

    impl Told {
        fn tell(&self, addresses: &[&str]) {
            let all = addresses.iter().map(|it| it.parse().unwrap()).collect();
            *self.0.lock().unwrap() = Some(all);
        }
    }

    impl Resolve for Told {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Answer<'a> {
            let told = self.0.lock().unwrap().clone();
            Box::pin(async move { told.ok_or_else(|| io::ErrorKind::TimedOut.into()) })
        }
    }

    /// Looks at the name every five seconds, as the gateway does.
    async fn pass(seconds: u64, names: &Names, now: &mut Instant) {
        for _ in 0..seconds.div_ceil(5) {
            *now += Duration::from_secs(5);
            names.refresh(*now).await;
        }
    }

    async fn shown(names: &Names, now: Instant) -> Vec<String> {
        let addresses = names.addresses(now).await.unwrap();
        addresses.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_name_that_changes_is_followed_and_old_addresses_are_gone_in_time() {
        let told = Arc::new(Told::default());
        let names = Names::new("example.test", 443, Arc::clone(&told) as Arc<dyn Resolve>);
        let mut now = Instant::now();
        assert!(names.addresses(now).await.is_err(), "nobody has answered");
        told.tell(&["192.0.2.1:443", "192.0.2.2:443"]);
        assert_eq!(shown(&names, now).await, ["192.0.2.1:443", "192.0.2.2:443"]);
        told.tell(&["192.0.2.2:443", "192.0.2.3:443"]);
        pass(35, &names, &mut now).await;
        assert_eq!(shown(&names, now).await, ["192.0.2.2:443", "192.0.2.3:443"]);
        assert!(names.gone().is_empty(), "an answer may have others of many");
        pass(70, &names, &mut now).await;
        assert_eq!(names.gone(), ["192.0.2.1:443".parse().unwrap()]);
        // It is back.
        told.tell(&["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"]);
        pass(35, &names, &mut now).await;
        assert!(names.gone().is_empty());
    }

    #[tokio::test]
    async fn while_nobody_answers_the_old_addresses_hold_for_five_minutes() {
        let told = Arc::new(Told::default());
        let names = Names::new("example.test", 443, Arc::clone(&told) as Arc<dyn Resolve>);
        let mut now = Instant::now();
        told.tell(&["192.0.2.1:443"]);
        assert_eq!(shown(&names, now).await, ["192.0.2.1:443"]);
        *told.0.lock().unwrap() = None;
        pass(290, &names, &mut now).await;
        assert_eq!(shown(&names, now).await, ["192.0.2.1:443"]);
        assert!(names.gone().is_empty());
        pass(15, &names, &mut now).await;
        assert!(names.addresses(now).await.is_err());
        told.tell(&["192.0.2.7:443"]);
        assert_eq!(shown(&names, now).await, ["192.0.2.7:443"]);
    }

    #[test]
    fn both_families_get_their_turn() {
        let of = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
        let mixed = of(&["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"]);
        let turns = of(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
        assert_eq!(by_turns(mixed), turns);
    }
}
