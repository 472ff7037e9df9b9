//! A gateway without doors, for the bench that `pareto_phase_seconds` is held against: callers' connections are
//! handed to it.

use anyhow::Result;

use crate::assemble::{self, Parts};
use crate::config::Config;
use crate::identify::{self, Owner};
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
    pub fn open(config: &Config, tenant: &str) -> Result<(Self, String)> {
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
