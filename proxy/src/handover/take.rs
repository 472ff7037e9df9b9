//! The side of the new process, up to the moment when it may begin.

use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;

use super::{Estate, FromNew, FromOld, VERSION, line, path};

/// How long the process before may take for a step: bringing the last of its journal into the ledger, at most.
const PATIENCE: Duration = Duration::from_mins(1);

/// A take-over that has begun.
#[derive(Debug)]
pub(crate) struct Taking {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

/// The process before, once it has left.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(super) stream: UnixStream,
    /// What it has said already.
    pub(super) said: Vec<u8>,
}

/// Asks the process that runs on the store in `dir` for its sockets: the callers' and the operators'.
pub(crate) fn ask(dir: &Path) -> anyhow::Result<([TcpListener; 2], Taking)> {
    let path = path(dir);
    let mut stream = UnixStream::connect(&path).with_context(|| {
        let shown = path.display();
        format!("no process to take over from listens at {shown}; start without --take-over")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&line(&FromNew::Hello { version: VERSION })?)?;
    let (message, sockets) = receive(&stream)?;
    match serde_json::from_slice(&message)? {
        FromOld::Listeners => {}
        FromOld::Refused(why) => bail!("the running process refuses: {why}"),
        other => bail!("the running process says {other:?}"),
    }
    let sockets = sockets.try_into();
    let sockets = sockets.map_err(|_| anyhow::anyhow!("not both sockets came"))?;
    let lines = BufReader::new(stream.try_clone()?);
    Ok((sockets, Taking { stream, lines }))
}

/// The first message, with the sockets that come with it.
fn receive(stream: &UnixStream) -> anyhow::Result<(Vec<u8>, Vec<TcpListener>)> {
    let mut message = vec![0; 4_096];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let mut slices = [IoSliceMut::new(&mut message)];
    let received = recvmsg(stream, &mut slices, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for part in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = part {
            sockets.extend(files.map(|file: OwnedFd| TcpListener::from(file)));
        }
    }
    message.truncate(received.bytes);
    Ok((message, sockets))
}

impl Taking {
    /// Has the running process let go of its store. From here on calls wait.
    pub(crate) fn take(&mut self) -> anyhow::Result<Estate> {
        self.say(&FromNew::Take)?;
        match self.hear()? {
            FromOld::Yours(estate) => Ok(estate),
            FromOld::Refused(why) => bail!("the running process goes on: {why}"),
            other => bail!("the running process says {other:?}"),
        }
    }

    /// Everything is built; when this returns, the other process has left.
    pub(crate) fn ready(mut self) -> anyhow::Result<Predecessor> {
        self.say(&FromNew::Ready)?;
        match self.hear()? {
            FromOld::Go => {}
            other => bail!("the running process says {other:?}"),
        }
        self.stream.set_read_timeout(None)?;
        Ok(Predecessor {
            said: self.lines.buffer().to_vec(),
            stream: self.stream,
        })
    }

    fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let text = line(message)?;
        self.stream
            .write_all(&text)
            .context("the running process is gone")
    }

    fn hear(&mut self) -> anyhow::Result<FromOld> {
        let mut text = String::new();
        let length = self.lines.read_line(&mut text)?;
        anyhow::ensure!(
            length > 0,
            "the running process has ended the take-over, and goes on"
        );
        Ok(serde_json::from_str(&text)?)
    }
}
