//! Calls that may leave only while the lease on their task is held. They say so themselves, in an extension
//! that stays in this process, and are looked at right before each `write(2)`: whatever lies above, queues,
//! locks and a full pipe, may hold them for as long as the process stands still.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncWrite, AsyncWriteExt, Sink};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use crate::outbound::RanOut;
use crate::tool::Until;

/// Until when a message may leave, where it says so.
pub(super) fn until(message: &ClientJsonRpcMessage) -> Option<Until> {
    let JsonRpcMessage::Request(request) = message else {
        return None;
    };
    let ClientRequest::CallToolRequest(call) = &request.request else {
        return None;
    };
    call.extensions.get::<Until>().cloned()
}

/// Whether an error of the transport is that a lease ran out.
pub(super) fn ran_out(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error
        .and_then(io::Error::get_ref)
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<RanOut>)
}

/// What makes a line that was begun no message at all.
const SPOILT: &[u8] = b"\0\n";

/// The pipes of a server, a message a line.
pub(super) struct Pipes {
    /// Reads; what it would write itself, a word on lines that are no message, goes nowhere.
    output: AsyncRwTransport<RoleClient, ChildStdout, Sink>,
    /// `None` when it is closed.
    input: Arc<Mutex<Option<ChildStdin>>>,
}

impl Pipes {
    /// Lines that the server sends are read up to `longest` bytes.
    pub(super) fn new(output: ChildStdout, input: ChildStdin, longest: usize) -> Self {
        let output = AsyncRwTransport::new(output, tokio::io::sink());
        Self {
            output: output.with_max_line_length(longest),
            input: Arc::new(Mutex::new(Some(input))),
        }
    }
}

impl Transport<RoleClient> for Pipes {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let input = Arc::clone(&self.input);
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut input = input.lock().await;
            let input = input.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            write(input, &line, until(&item).as_ref()).await
        }
    }

    fn receive(&mut self) -> impl Future<Output = Option<RxJsonRpcMessage<RoleClient>>> + Send {
        self.output.receive()
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        self.input.lock().await.take();
        Ok(())
    }
}

/// Writes a line, of which nothing that counts leaves when it is too late.
async fn write<W>(input: &mut W, line: &[u8], until: Option<&Until>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut rest = line;
    while !rest.is_empty() {
        let written = poll_fn(|context| {
            if until.is_some_and(Until::is_over) {
                return Poll::Ready(Ok(None));
            }
            Pin::new(&mut *input).poll_write(context, rest).map_ok(Some)
        });
        match written.await? {
            Some(0) => return Err(io::ErrorKind::WriteZero.into()),
            Some(written) => rest = rest.get(written..).unwrap_or_default(),
            None => {
                // Its end has not left yet, so it is no message; the next one must not become its end.
                if rest.len() < line.len() {
                    input.write_all(SPOILT).await?;
                }
                return Err(io::Error::other(RanOut));
            }
        }
    }
    input.flush().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_line_that_has_left_in_part_becomes_no_message_when_the_lease_runs_out() {
        let (mut input, mut server) = tokio::io::duplex(16);
        let now = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&now);
        let until = Until::new(
            Arc::new(move || clock.load(Ordering::Relaxed)),
            Arc::new(AtomicI64::new(5)),
        );
        let reading = async {
            let mut first = [0; 16];
            server.read_exact(&mut first).await.unwrap();
            now.store(5, Ordering::Relaxed);
            let mut rest = vec![0; 64];
            let read = server.read(&mut rest).await.unwrap();
            rest.truncate(read);
            (first, rest)
        };
        let line = b"{\"jsonrpc\":\"2.0\",\"id\":1}\n";
        let (written, (first, rest)) = tokio::join!(write(&mut input, line, Some(&until)), reading);
        assert!(ran_out(&written.unwrap_err()));
        assert_eq!(
            [&first[..], &rest].concat(),
            b"{\"jsonrpc\":\"2.0\"\0\n",
            "what was begun is closed, and is no JSON"
        );
        assert!(ran_out(
            &write(&mut input, line, Some(&until)).await.unwrap_err()
        ));
        write(&mut input, b"{}\n", None).await.unwrap();
        let mut after = [0; 3];
        server.read_exact(&mut after).await.unwrap();
        assert_eq!(&after, b"{}\n", "nothing was left of the refused line");
    }
}
