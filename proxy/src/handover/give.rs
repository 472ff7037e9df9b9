//! The side of the running process: it waits for its successor, hands over, and goes on where that fails.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::successor::Successor;
use super::{FromNew, FromOld, VERSION, line, path};
use crate::assemble::Parts;

/// How long the first word may take, and preparing, which reads files alone.
const HELLO: Duration = Duration::from_secs(5);
const PREPARING: Duration = Duration::from_mins(1);
/// How long calls wait at most for the new process to open the store.
const OPENING: Duration = Duration::from_secs(20);
/// How long a new process that has failed may take to let go of the journal.
const DYING: Duration = Duration::from_secs(10);

/// What is handed over.
#[derive(Debug)]
pub(crate) struct Giver {
    pub(crate) parts: Arc<Parts>,
    /// The callers' and the operators'.
    pub(crate) sockets: [TcpListener; 2],
    /// Nothing is accepted while it is true.
    pub(crate) pause: watch::Sender<bool>,
    /// Cancelled once another process has taken over.
    pub(crate) left: CancellationToken,
    /// Cancelled where this process can not go on.
    pub(crate) lost: CancellationToken,
}

/// Waits for successors until one has taken over, or `stop`.
pub(crate) async fn offer(dir: &Path, giver: Giver, stop: CancellationToken) {
    let path = path(dir);
    // Nobody else can be at this store, whose journal is locked.
    let _stale = std::fs::remove_file(&path);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "no other process can take over from this one");
            return;
        }
    };
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        match giver.hand_over(stream, &stop).await {
            Ok(()) => {
                tracing::info!("another process has taken over");
                giver.left.cancel();
                return;
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "nobody has taken over; this process goes on");
            }
        }
        if giver.lost.is_cancelled() {
            return;
        }
    }
}

/// A socket for this user alone.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Both ways of a connection.
struct Talk {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writing: OwnedWriteHalf,
}

impl Giver {
    async fn hand_over(&self, stream: UnixStream, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut talk = self.greet(stream).await?;
        match talk.hear(PREPARING).await.context("while it prepared")? {
            FromNew::Take => {}
            other => bail!("it says {other:?}"),
        }
        if stop.is_cancelled() {
            talk.say(&FromOld::Refused("it is ending".to_owned()))
                .await?;
            bail!("this process is ending");
        }
        self.pause.send_replace(true);
        let journal = Arc::clone(&self.parts.shared.journal);
        journal.leave();
        match self.change(&mut talk).await {
            Ok(()) => {}
            Err(error) => {
                // It hears the end of the connection, and ends.
                drop(talk);
                self.go_on().await;
                return Err(error);
            }
        }
        let Talk { lines, writing } = talk;
        let stream = lines.into_inner().into_inner().reunite(writing)?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let end = self.parts.store.journal.written();
        journal.follow(Successor::new(stream)?, end);
        // Whoever leads tells.
        self.parts.webhooks.send_modify(|_| {});
        Ok(())
    }

    /// Hears who it is, and sends the sockets.
    async fn greet(&self, stream: UnixStream) -> anyhow::Result<Talk> {
        let (reading, writing) = stream.into_split();
        let lines = BufReader::new(reading).lines();
        let mut talk = Talk { lines, writing };
        let FromNew::Hello { version } = talk.hear(HELLO).await? else {
            bail!("it does not say hello");
        };
        if version != VERSION {
            let why = format!("it hands over by protocol {VERSION}, not {version}; restart it");
            talk.say(&FromOld::Refused(why)).await?;
            bail!("it speaks protocol {version}");
        }
        let text = line(&FromOld::Listeners)?;
        let stream: &UnixStream = talk.writing.as_ref();
        let files = self.sockets.each_ref().map(AsFd::as_fd);
        stream
            .async_io(Interest::WRITABLE, || {
                let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut beside = SendAncillaryBuffer::new(&mut room);
                beside.push(SendAncillaryMessage::ScmRights(&files));
                let sent = sendmsg(
                    stream,
                    &[IoSlice::new(&text)],
                    &mut beside,
                    SendFlags::NOSIGNAL,
                );
                sent.map_err(std::io::Error::from)
            })
            .await?;
        Ok(talk)
    }

    /// From `take` to `go`: calls wait meanwhile.
    async fn change(&self, talk: &mut Talk) -> anyhow::Result<()> {
        let began = Instant::now();
        let parts = Arc::clone(&self.parts);
        let estate = tokio::task::spawn_blocking(move || parts.set_aside()).await??;
        talk.say(&FromOld::Yours(estate)).await?;
        match talk
            .hear(OPENING)
            .await
            .context("while it opened the store")?
        {
            FromNew::Ready => {}
            other => bail!("it says {other:?}"),
        }
        talk.say(&FromOld::Go).await?;
        let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(waited_ms, "handed over");
        Ok(())
    }

    /// Takes up again what was laid aside.
    async fn go_on(&self) {
        let until = Instant::now() + DYING;
        loop {
            let parts = Arc::clone(&self.parts);
            let taken = tokio::task::spawn_blocking(move || parts.take_up()).await;
            match taken {
                Ok(Ok(())) => break,
                _ if Instant::now() < until => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok(Err(error)) => {
                    tracing::error!(error = %format!("{error:#}"), "the store can not be taken up again");
                    return self.lost.cancel();
                }
                Err(error) => {
                    tracing::error!(%error, "the store can not be taken up again");
                    return self.lost.cancel();
                }
            }
        }
        self.parts.shared.journal.stay();
        self.pause.send_replace(false);
    }
}

impl Talk {
    async fn hear(&mut self, patience: Duration) -> anyhow::Result<FromNew> {
        let text = timeout(patience, self.lines.next_line());
        let text = text.await.context("it takes too long")??;
        let text = text.context("it has ended")?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn say(&mut self, message: &FromOld) -> anyhow::Result<()> {
        Ok(self.writing.write_all(&line(message)?).await?)
    }
}
