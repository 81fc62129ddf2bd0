//! Stub.

/// Stub.
pub fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env = crate::environment::Environment::new(
        std::path::PathBuf::from(&args[0]).canonicalize().unwrap(),
    );
    let plan = crate::sandbox::plan_for(&env).unwrap();
    match crate::sandbox::exec(plan, args[1..].to_vec()) {
        Ok(c) => c.into(),
        Err(e) => {
            eprintln!("{e}");
            5.into()
        }
    }
}
