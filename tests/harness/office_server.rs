//! A made-up office over MCP on standard input and output, as a program that can be killed.

fn main() -> std::process::ExitCode {
    tests::office::main()
}
