//! A made-up office as an MCP server: a day of mail, calendar, files and tasks of one person. All it
//! does is on the disk before it answers, so that whoever kills it or its client can count effects.

mod calendar;
mod desk;
mod mailbox;
mod offered;

use std::path::PathBuf;
use std::process::ExitCode;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt};
use serde_json::Value;

pub use desk::{Call, Desk};

const HELP: &str = "\
Serves a made-up office over MCP on standard input and output.

  office-server --dir FOLDER

FOLDER gets mail.json, events.json, tasks.json and files.json where it has none, and drafts.json and
calls.jsonl as they come. Descriptions in FOLDER/descriptions.json ({\"tool\": \"text\"}) replace those
of the tools.";

/// The program.
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some("--dir"), Some(folder), None) = (args.next().as_deref(), args.next(), args.next())
    else {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match runtime.block_on(serve(folder.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("office: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until its client closes standard input.
async fn serve(folder: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let server = Server {
        desk: Desk::open(&folder)?,
    };
    let running = server.serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}

#[derive(Debug)]
struct Server {
    desk: Desk,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let mut info = ServerConfig::new(capabilities);
        info.server_info = Implementation::new("office", "1.0.0");
        info.with_instructions("Mail, calendar, files and tasks of Ana Kovac, procurement.")
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(offered::tools(&self.desk)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = Call {
            tool: request.name.into_owned(),
            arguments: Value::Object(request.arguments.unwrap_or_default()),
            meta: serde_json::to_value(&context.meta).unwrap_or_default(),
        };
        let result = match self.desk.call(&call) {
            Ok(answer) => CallToolResult::structured(answer),
            Err(words) => CallToolResult::error(vec![ContentBlock::text(words)]),
        };
        Ok(result.into())
    }
}
