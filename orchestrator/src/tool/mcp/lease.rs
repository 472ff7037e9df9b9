//! Calls that may leave only while the lease on their task is held. They say so themselves, in an extension
//! that stays in this process, and are looked at with nothing left between them and the server but the
//! write: queues of the layers above may hold them for as long as the process stands still.

use std::future::Future;
use std::io;

use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::process::{ChildStdin, ChildStdout};

use crate::tool::{LATE, Until};

/// A call was not sent, because another may have its task by now.
#[derive(Debug, thiserror::Error)]
#[error("{LATE}")]
pub(super) struct RanOut;

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

/// The pipes of a server.
pub(super) struct Pipes(pub(super) AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>);

impl Transport<RoleClient> for Pipes {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let until = until(&item);
        let sending = self.0.send(item);
        async move {
            if until.is_some_and(|it| it.is_over()) {
                return Err(io::Error::other(RanOut));
            }
            sending.await
        }
    }

    fn receive(&mut self) -> impl Future<Output = Option<RxJsonRpcMessage<RoleClient>>> + Send {
        self.0.receive()
    }

    fn close(&mut self) -> impl Future<Output = Result<(), io::Error>> + Send {
        self.0.close()
    }
}
