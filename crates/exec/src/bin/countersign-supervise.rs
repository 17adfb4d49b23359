//! The supervisor of one tool call, for programs that do not carry it themselves. Started by
//! `countersign_exec::ProcessExecutor`; of no use by hand.

use std::process::ExitCode;

use countersign_exec::supervise;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    args.next_if(|arg| arg == supervise::ARG);
    supervise::main(args)
}
