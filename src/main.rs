//! Process entry: a guest if this process was started as one, before any thread exists; else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = casemate::sandbox::init::enter(casemate::tool::inside::serve) {
        return code;
    }
    casemate::cli::main()
}
