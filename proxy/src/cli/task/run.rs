//! `pareto task run`: a brief becomes a task, is followed to its end, and what it made is put into a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use http::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::client::{Client, Place, Session, number, text};
use super::super::{plain, say};
use super::follow::{Answers, End, How, follow};
use super::local::Local;
use super::outcome::Outcome;
use super::screen::Screen;
use super::scripted::{Stage, play_of, tools_of};
use super::stop::Stop;
use crate::clock::now_ms;

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(super) struct Run {
    /// The brief, a file of JSON.
    brief: PathBuf,
    #[command(flatten)]
    place: Place,
    /// A play that stands in for the models; NAME.play.json beside the brief where there is one and neither
    /// --config nor an address is given.
    #[arg(long, value_name = "PLAY")]
    scripted: Option<PathBuf>,
    /// The configuration of the gateway that is started here; beside a play only its tools and rules of
    /// tasks, from tasks.toml beside the brief where this is absent.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Approve what the task asks for.
    #[arg(long, conflicts_with = "no")]
    yes: bool,
    /// Refuse what the task asks for.
    #[arg(long)]
    no: bool,
    /// Begin another task, though this brief has one already.
    #[arg(long)]
    new: bool,
    /// Where to put what the task makes; a folder with its id where this is absent.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the whole task as JSON at its end, and nothing else on standard output.
    #[arg(long)]
    json: bool,
    /// Milliseconds that scripted models think before they speak.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pace: u64,
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut stop = Stop::listen()?;
        let bytes = std::fs::read(&self.brief);
        let bytes = bytes.with_context(|| format!("reading {}", self.brief.display()))?;
        let brief: Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no JSON", self.brief.display()))?;
        let (local, client) = self.gateway().await?;
        let done = self
            .carry_out(&client, &brief, &bytes, local.as_ref(), &mut stop)
            .await;
        if let Some(local) = local {
            local.shut_down(&mut stop).await;
        }
        done
    }

    /// The gateway that is named, that runs on the folder already, or that is started here.
    async fn gateway(&self) -> anyhow::Result<(Option<Local>, Client)> {
        let is_named = self.place.address.is_some() || std::env::var("PARETO_ADDRESS").is_ok();
        if is_named {
            ensure!(
                self.scripted.is_none() && self.config.is_none(),
                "--scripted and --config are for a gateway that is started here; leave them out, or the address"
            );
            return Ok((None, Client::of(&self.place)?));
        }
        let play = self.scripted.clone();
        let play = play.or_else(|| self.config.is_none().then(|| play_of(&self.brief))?);
        let is_own = play.is_some() || self.place.data.is_some();
        if is_own && let Some(client) = self.beside().await {
            return Ok((None, client));
        }
        let local = match (play, &self.config) {
            (Some(play), tools) => {
                let data = self.place.folder();
                std::fs::create_dir_all(data)
                    .with_context(|| format!("making {}", data.display()))?;
                let data = std::path::absolute(data).context("the folder's path")?;
                let tools = tools.clone().or_else(|| tools_of(&self.brief));
                let stage = Stage::set(&play, tools.as_deref(), &data, self.pace).await?;
                Local::on_stage(stage, &data).await?
            }
            (None, Some(config)) => Local::of(config, self.place.data.as_deref()).await?,
            (None, None) => anyhow::bail!(
                "no models are named: give --address and --key of a running gateway, --config, or --scripted with \
                 a play"
            ),
        };
        let client = local.client(&self.place)?;
        Ok((Some(local), client))
    }

    /// The gateway that another `pareto task run` has on the same folder, if it answers.
    async fn beside(&self) -> Option<Client> {
        Session::read(self.place.folder())?;
        let client = Client::of(&self.place).ok()?;
        client.get("/v1/tasks?limit=1").await.ok()?;
        Some(client)
    }

    /// Begins the task, or finds it again, and sees it to its end.
    async fn carry_out(
        &self,
        client: &Client,
        brief: &Value,
        bytes: &[u8],
        local: Option<&Local>,
        stop: &mut Stop,
    ) -> anyhow::Result<ExitCode> {
        let key = self.idempotency(brief, bytes)?;
        let headers: Vec<(&str, &str)> = key
            .iter()
            .map(|key| ("idempotency-key", key.as_str()))
            .collect();
        let began = client.say(Method::POST, "/v1/tasks", Some(brief), &headers);
        let Some(began) = stop.within(began).await else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let began = began.context("the brief was not taken")?;
        let id = text(&began, "/id").to_owned();
        let last = u64::try_from(number(&began, "/last_seq")).unwrap_or(0);
        let mut screen = Screen::find(self.json);
        let word = if last > 1 { "goes on" } else { "begins" };
        screen.say(&format!("{id} {word} at {}", client.address()));
        let how = How {
            answers: match (self.yes, self.no) {
                (true, _) => Answers::Yes,
                (_, true) => Answers::No,
                _ => Answers::Person,
            },
            // Who comes back to a terminal sees how it stands; a record of lines is told whole.
            after: if screen.is_terminal() {
                last.saturating_sub(1)
            } else {
                0
            },
            place: self.place.words(local.map(Local::folder)),
        };
        if follow(client, &id, how, &mut screen, stop).await? == End::Left {
            let back = if local.is_some() {
                "it stays as it is; the same command goes on with it"
            } else {
                "it goes on without you; the same command, or `pareto task watch`, comes back to it"
            };
            screen.say(&format!("{id}: {back}"));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        self.report(client, &id).await
    }

    /// What a task of this brief is known by, where the brief does not say itself.
    fn idempotency(&self, brief: &Value, bytes: &[u8]) -> anyhow::Result<Option<String>> {
        if !text(brief, "/idempotency_key").is_empty() {
            ensure!(
                !self.new,
                "the brief has an idempotency key of its own; change it to begin another task"
            );
            return Ok(None);
        }
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let digest = u128::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 16]));
        let again = self.new.then(|| format!("-{}", now_ms()));
        let again = again.unwrap_or_default();
        Ok(Some(format!("brief-{digest:032x}{again}")))
    }

    /// Tells what came of it, and copies what it made.
    async fn report(&self, client: &Client, id: &str) -> anyhow::Result<ExitCode> {
        let outcome = Outcome::read(client, id).await?;
        let folder = self.out.clone().unwrap_or_else(|| PathBuf::from(id));
        let saved = outcome.save(client, &folder).await;
        if self.json {
            say(&serde_json::to_string_pretty(&outcome.task)?)?;
        } else {
            say(&outcome.report())?;
        }
        let saved = saved?;
        if saved > 0 && !self.json {
            say(&told(saved, &folder))?;
        }
        Ok(if outcome.is_complete() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// What the shell is told when a person leaves.
const INTERRUPTED: u8 = 130;

/// How many files lie where.
pub(super) fn told(saved: usize, folder: &Path) -> String {
    let folder = plain::line(&folder.display().to_string(), 200);
    format!("{saved} artefacts are in {folder}")
}
