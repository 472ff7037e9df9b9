//! A gateway in this process, for tasks of one's own: it leaves word of itself in its folder, so that other
//! commands find it, and its next start takes up what it left.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bench::upstream::Upstream;

use super::super::client::{Client, Place, Session, kept_key};
use super::scripted::Stage;
use super::stop::Stop;
use crate::boot::{self, Running};
use crate::config::Config;
use crate::identify::{self, Owner};

/// Who pays for tasks that are run without a gateway.
const TENANT: &str = "local";
/// Seconds that what is under way gets to end when the person leaves.
const DRAIN_S: u64 = 20;

/// A gateway under way.
pub(super) struct Local {
    running: Running,
    /// Scripted models, where there are any.
    _upstreams: Vec<Upstream>,
    folder: PathBuf,
}

impl Local {
    /// A gateway whose models are on a stage. Its configuration stays in the folder, for other commands.
    pub(super) async fn on_stage(stage: Stage, data: &Path) -> anyhow::Result<Self> {
        let file = data.join("pareto.toml");
        std::fs::write(&file, &stage.config)
            .with_context(|| format!("writing {}", file.display()))?;
        let config = super::super::load(&file)?;
        Self::begin(config, file, stage.upstreams).await
    }

    /// A gateway of a configuration, on ports of its own.
    pub(super) async fn of(file: &Path, data: Option<&Path>) -> anyhow::Result<Self> {
        let mut config = super::super::load(file)?;
        if let Some(data) = data {
            data.clone_into(&mut config.store.dir);
        }
        std::fs::create_dir_all(&config.store.dir)
            .with_context(|| format!("making {}", config.store.dir.display()))?;
        Self::begin(config, file.to_owned(), Vec::new()).await
    }

    async fn begin(
        mut config: Config,
        file: PathBuf,
        upstreams: Vec<Upstream>,
    ) -> anyhow::Result<Self> {
        let folder = config.store.dir.clone();
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        (config.server.listen, config.admin.listen) = (anywhere, anywhere);
        (config.server.tls_cert, config.server.tls_key) = (None, None);
        config.server.drain_s = config.server.drain_s.min(DRAIN_S);
        // This program guards the servers of tools that it starts.
        let origin = boot::Origin {
            path: Some(file),
            guard: std::env::current_exe().ok(),
            ..boot::Origin::default()
        };
        let running = boot::begin(config, origin).await;
        let running = running.with_context(|| {
            format!(
                "starting a gateway on {}; where one runs on it already, give its --address and --key",
                folder.display()
            )
        })?;
        let session = Session {
            address: running.address.to_string(),
            admin: running.admin_address.to_string(),
        };
        let local = Self {
            running,
            _upstreams: upstreams,
            folder,
        };
        local.keep_token()?;
        local.key()?;
        session.write(&local.folder)?;
        Ok(local)
    }

    /// The folder of its store, where it has left word.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks it, as its owner.
    pub(super) fn client(&self, place: &Place) -> anyhow::Result<Client> {
        let address = self.running.address.to_string();
        Client::at(&address, self.key()?, place)
    }

    /// The owner's key, made at the first start.
    fn key(&self) -> anyhow::Result<String> {
        let shared = &self.running.parts.shared;
        let path = kept_key(&self.folder);
        let rows = shared.ledger.keys()?;
        if let Ok(text) = std::fs::read_to_string(&path) {
            let id = text.trim().rsplit('-').nth(1).unwrap_or_default();
            let stands = |row: &meter::ledger::KeyRow| row.id == id && row.revoked_at_ms.is_none();
            if rows.iter().any(stands) {
                return Ok(text.trim().to_owned());
            }
        }
        let owner = Owner {
            tenant: TENANT.to_owned(),
            label: "pareto task run".to_owned(),
            ..Owner::default()
        };
        let created = identify::create(owner, shared.keys.pepper())?;
        shared.ledger.add_key(&created.row)?;
        shared.keys.load(shared.ledger.keys()?);
        keep(&path, created.key.expose())?;
        Ok(created.key.expose().to_owned())
    }

    /// Keeps the operator's token where other commands look for it, where the configuration names one.
    fn keep_token(&self) -> anyhow::Result<()> {
        let path = self.folder.join("admin.token");
        let token = self.running.parts.admin_token.load();
        let token = token.expose();
        match std::fs::read_to_string(&path) {
            Ok(kept) if kept.trim() == token => Ok(()),
            _ => keep(&path, token),
        }
    }

    /// Ends it in order; whoever wants it to stop once more need not wait.
    pub(super) async fn shut_down(self, stop: &mut Stop) {
        Session::remove(&self.folder);
        self.running.shut_down(stop.asked()).await;
    }
}

/// Writes a secret that only its owner may read.
fn keep(path: &Path, secret: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = file.with_context(|| format!("making {}", path.display()))?;
    file.write_all(secret.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}
