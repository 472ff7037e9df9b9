//! Parts of a gateway for benches. One without doors, which `pareto_phase_seconds` is held against: callers'
//! connections are handed to it. And the check of keys, for the bench that looks whether its time tells anything.

use http::HeaderMap;

use crate::assemble::{self, Parts};
use crate::config::Config;
use crate::identify::{self, Keys, Owner, Pepper};
use crate::machine::Stream;
use crate::played::Node;
use crate::runtime::Runtime;

/// A gateway with the store and the threads that a program has.
#[derive(Debug)]
pub struct Apart {
    node: Node,
    _parts: Parts,
}

impl Apart {
    /// Opens the store that `config` names; also returns a key of `tenant`.
    ///
    /// # Errors
    /// As a start does.
    pub fn open(config: &Config, tenant: &str) -> anyhow::Result<(Self, String)> {
        let parts = assemble::parts(config, Runtime::build(config, None)?, None, None)?;
        let owner = Owner {
            tenant: tenant.to_owned(),
            ..Owner::default()
        };
        let created = identify::create(owner, &assemble::pepper(config)?)?;
        parts.shared.keys.load(vec![created.row]);
        let key = created.key.expose().to_owned();
        let node = Node::of(&parts.shared);
        Ok((
            Self {
                node,
                _parts: parts,
            },
            key,
        ))
    }

    /// Serves one caller's connection to its end.
    pub async fn serve(&self, stream: Box<dyn Stream>) {
        self.node.serve(stream).await;
    }
}

/// The check of keys, with one key in force.
#[derive(Debug)]
pub struct KeyCheck(Keys);

impl KeyCheck {
    /// Makes the key as well.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn new() -> anyhow::Result<(Self, String)> {
        let keys = Keys::new(Pepper::new(b"a pepper for a bench"));
        let created = identify::create(Owner::default(), keys.pepper())?;
        keys.load(vec![created.row]);
        Ok((Self(keys), created.key.expose().to_owned()))
    }

    /// Whether the key in `headers` is in force.
    pub fn lets_in(&self, headers: &HeaderMap) -> bool {
        identify::subject(headers, &self.0).is_ok()
    }
}
