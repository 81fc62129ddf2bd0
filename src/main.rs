//! Process entry: a guest if this process was started as one, before any thread exists; else the command line.

use std::process::ExitCode;

use casemate::tool::inside;

fn main() -> ExitCode {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return code;
    }
    casemate::cli::main()
}
