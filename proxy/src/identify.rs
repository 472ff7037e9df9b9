//! Who is calling: keys of the form `sk-par-<public id>-<secret>`, looked up by the public id and
//! compared as HMAC-SHA-256 under a pepper that is not in the database.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use meter::Subject;
use meter::ledger::KeyRow;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::now_ms;
use crate::machine;

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const PREFIX: &str = "sk-par-";
const ID_CHARS: usize = 10;
const SECRET_CHARS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a caller is not let in. The message never repeats what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("no key was sent; put it into `Authorization: Bearer` or `x-api-key`")]
    NoKey,
    #[error("two keys were sent; send one")]
    TwoKeys,
    #[error("this key is not known; make one with `pareto keys create`")]
    WrongKey,
    #[error("this key was revoked; ask for a new one")]
    Revoked,
}

/// Whose a call is that comes from inside, beside a request that bears no key. Nothing from the network
/// can put it there: listeners begin with a request's head and body alone.
#[derive(Debug, Clone)]
pub(crate) struct Vouched(pub(crate) Result<Subject, Stranger>);

/// The keys in force, replaced as a whole when they change.
#[derive(Debug)]
pub struct Keys {
    pepper: Pepper,
    known: ArcSwap<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    hmac: [u8; 32],
    revoked: bool,
    subject: Subject,
}

/// The secret half of every key hash; not in the database, so that a stolen table is useless.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Pepper {
    /// The pepper with these bytes; HMAC takes any length.
    pub fn new(secret: &[u8]) -> Self {
        // A key of any length is taken, so the fallback is never used.
        Self(
            Hmac::new_from_slice(secret).unwrap_or_else(|_| {
                Hmac::new(&hmac::digest::common::Key::<Hmac<Sha256>>::default())
            }),
        )
    }

    fn hmac(&self, secret: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(secret.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// A new key: the row to store, and the text to show once.
#[derive(Debug)]
pub struct Created {
    pub row: KeyRow,
    pub key: crate::config::Secret,
}

/// Where a new key belongs.
#[derive(Debug, Clone, Default, serde::Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Who pays.
    #[arg(long)]
    pub tenant: String,
    /// The team of the tenant.
    #[arg(long, default_value = "")]
    #[serde(default)]
    pub team: String,
    /// The project of the team.
    #[arg(long, default_value = "")]
    #[serde(default)]
    pub project: String,
    /// What people call the key.
    #[arg(long, default_value = "")]
    #[serde(default)]
    pub label: String,
}

/// The longest name, in characters.
const MOST_NAME: usize = 128;

/// A name that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongOwner {
    #[error("`tenant` is empty; name one")]
    NoTenant,
    #[error("`{0}` is longer than {MOST_NAME} characters; shorten it")]
    TooLong(&'static str),
    #[error("`{0}` has a character that can not be seen; leave it out")]
    Hidden(&'static str),
    #[error("`{0}` is only spaces; name something or leave it out")]
    Blank(&'static str),
}

impl Owner {
    /// Whether its names can be kept and shown: they are columns of tables, and everybody reads them.
    ///
    /// # Errors
    /// The first name that can not.
    pub fn check(&self) -> Result<(), WrongOwner> {
        if self.tenant.is_empty() {
            return Err(WrongOwner::NoTenant);
        }
        for (what, name) in [
            ("tenant", &self.tenant),
            ("team", &self.team),
            ("project", &self.project),
            ("label", &self.label),
        ] {
            if name.chars().nth(MOST_NAME).is_some() {
                return Err(WrongOwner::TooLong(what));
            }
            if name.chars().any(wire::letters::is_hidden) {
                return Err(WrongOwner::Hidden(what));
            }
            if !name.is_empty() && name.trim().is_empty() {
                return Err(WrongOwner::Blank(what));
            }
        }
        Ok(())
    }
}

/// Makes a key.
///
/// # Errors
/// When the operating system has no randomness.
pub fn create(owner: Owner, pepper: &Pepper) -> anyhow::Result<Created> {
    let mut random = [0; 64];
    machine::random(&mut random).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    Ok(from_random(owner, pepper, &random, now_ms()))
}

/// A random number, for names.
///
/// # Errors
/// When the operating system has no randomness.
pub(crate) fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn from_random(owner: Owner, pepper: &Pepper, random: &[u8; 64], now_ms: i64) -> Created {
    // A byte modulo 62 favours some letters by 1/31: over 43 letters that costs under two of 256 bits.
    let mut letters = random.iter().map(|byte| {
        let index = usize::from(*byte).rem_euclid(ALPHABET.len());
        char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
    });
    let id: String = letters.by_ref().take(ID_CHARS).collect();
    let secret: String = letters.take(SECRET_CHARS).collect();
    let row = KeyRow {
        id: id.clone(),
        hmac: pepper.hmac(&secret),
        tenant: owner.tenant,
        team: owner.team,
        project: owner.project,
        label: owner.label,
        created_at_ms: now_ms,
        revoked_at_ms: None,
    };
    Created {
        row,
        key: crate::config::Secret::new(format!("{PREFIX}{id}-{secret}")),
    }
}

impl Keys {
    /// No keys yet.
    pub fn new(pepper: Pepper) -> Self {
        Self {
            pepper,
            known: ArcSwap::default(),
        }
    }

    /// Replaces all keys.
    pub fn load(&self, rows: Vec<KeyRow>) {
        let known = rows.into_iter().map(|row| {
            let subject = Subject::of_key(&row.tenant, &row.team, &row.project, &row.id);
            let revoked = row.revoked_at_ms.is_some();
            (
                row.id,
                Known {
                    hmac: row.hmac,
                    revoked,
                    subject,
                },
            )
        });
        self.known.store(Arc::new(known.collect()));
    }

    /// The subject of the key with this public id, if it is in force.
    pub(crate) fn known(&self, id: &str) -> Result<Subject, Stranger> {
        match self.known.load().get(id) {
            Some(known) if known.revoked => Err(Stranger::Revoked),
            Some(known) => Ok(known.subject.clone()),
            None => Err(Stranger::WrongKey),
        }
    }

    /// The pepper, for making keys.
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }
}

/// The subject whose key stands in `headers`. One HMAC is computed whether the id is known or not.
pub(crate) fn subject(headers: &HeaderMap, keys: &Keys) -> Result<Subject, Stranger> {
    let key = presented(headers)?;
    let parts = key
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'));
    let (id, secret) = parts.unwrap_or(("", key));
    let hmac = keys.pepper.hmac(secret);
    let table = keys.known.load();
    let known = table.get(id);
    let expected = known.map_or(&[0; 32], |known| &known.hmac);
    let same = bool::from(expected.ct_eq(&hmac));
    match known {
        Some(known) if same && known.revoked => Err(Stranger::Revoked),
        Some(known) if same => Ok(known.subject.clone()),
        _ => Err(Stranger::WrongKey),
    }
}

/// The public id of the key that a request bears, whoever knows it.
pub(crate) fn claimed(headers: &HeaderMap) -> Option<&str> {
    let rest = presented(headers).ok()?.strip_prefix(PREFIX)?;
    rest.split_once('-').map(|(id, _)| id)
}

/// The key that a request bears. Of two, whoever stands before us may have checked the other one.
fn presented(headers: &HeaderMap) -> Result<&str, Stranger> {
    let once = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Stranger::TwoKeys),
            (value, None) => Ok(value.and_then(|value| value.to_str().ok())),
        }
    };
    let bearer = once(&AUTHORIZATION)?.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let key = once(&X_API_KEY)?;
    // Clients send both when both are configured; ours is the one with our prefix.
    let ours = |token: &&str| token.starts_with(PREFIX);
    if let (Some(bearer), Some(key)) = (bearer.filter(ours), key.filter(ours))
        && bearer != key
    {
        return Err(Stranger::TwoKeys);
    }
    bearer
        .filter(ours)
        .or(key)
        .or(bearer)
        .ok_or(Stranger::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (Keys, String) {
        let keys = Keys::new(Pepper::new(b"pepper"));
        let owner = Owner {
            tenant: "acme".into(),
            team: "search".into(),
            ..Owner::default()
        };
        let created = from_random(owner, keys.pepper(), &[7; 64], 0);
        keys.load(vec![created.row.clone()]);
        (keys, created.key.expose().to_owned())
    }

    fn who(keys: &Keys, header: &str, value: &str) -> Result<String, Stranger> {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::HeaderName::from_bytes(header.as_bytes()).expect("a name"),
            value.parse().expect("a value"),
        );
        subject(&headers, keys).map(|subject| subject.tenant.to_string())
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let (keys, key) = keys();
        assert_eq!(who(&keys, "x-api-key", &key), Ok("acme".into()));
        assert_eq!(
            who(&keys, "authorization", &format!("bearer {key}")),
            Ok("acme".into())
        );
        assert_eq!(who(&keys, "authorization", "Basic x"), Err(Stranger::NoKey));
    }

    #[test]
    fn two_keys_are_one_or_neither() {
        let (keys, key) = keys();
        for (bearer, api_key, told) in [
            (&*key, &*key, Ok("acme")),
            (&key, "sk-ant-x", Ok("acme")),
            ("sk-ant-x", &key, Ok("acme")),
            (&key, "sk-par-unknown000-x", Err(Stranger::TwoKeys)),
            ("sk-par-unknown000-x", &key, Err(Stranger::TwoKeys)),
        ] {
            let mut headers = HeaderMap::new();
            let bearer = format!("Bearer {bearer}").parse().expect("a value");
            headers.insert(AUTHORIZATION, bearer);
            headers.insert(&X_API_KEY, api_key.parse().expect("a value"));
            let who = subject(&headers, &keys).map(|subject| subject.tenant.to_string());
            assert_eq!(who, told.map(str::to_owned));
        }
    }

    #[test]
    fn a_wrong_or_revoked_key_is_refused() {
        let (keys, key) = keys();
        let mut wrong = key.clone();
        wrong.pop();
        for bad in [wrong.as_str(), "sk-par-unknown000-x", "sk-par-", "x", ""] {
            assert_eq!(
                who(&keys, "x-api-key", bad),
                Err(Stranger::WrongKey),
                "{bad}"
            );
        }
        let mut row = from_random(Owner::default(), keys.pepper(), &[7; 64], 0).row;
        row.revoked_at_ms = Some(1);
        keys.load(vec![row]);
        assert_eq!(who(&keys, "x-api-key", &key), Err(Stranger::Revoked));
    }
}
