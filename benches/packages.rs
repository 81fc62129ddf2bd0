//! What an environment's packages cost a session, from the start of `casemate run` to its end with one `bash` call in it:
//! without packages, with a layer that is there, and with one that is installed first.
//!
//! `cargo bench --bench packages`. The package is a wheel of 300 modules from a registry on an address of this machine:
//! `pip` and the sandbox are measured, not a network. Needs `python3` with pip.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use support::{AnyError, Contestant, Effort, compare};

/// Makes the registry in the current directory and serves it on the address that is given, and on any port.
const REGISTRY: &str = r#"
import functools, http.server, os, sys, zipfile
os.makedirs("simple/casebench")
with zipfile.ZipFile("simple/casebench/casebench-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as z:
    z.writestr("casebench/__init__.py", "")
    for i in range(300): z.writestr(f"casebench/m{i}.py", f"VALUE = {i}\n" * 2000)
    info = "casebench-1.0.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: casebench\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
with open("simple/casebench/index.html", "w") as page: page.write('<a href="casebench-1.0-py3-none-any.whl">it</a>')
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), functools.partial(Quiet, directory="."))
print(server.server_port, flush=True)
server.serve_forever()
"#;

const ENVIRONMENT: &str = r#"{"config": {"type": "cloud", "packages": {"pip": ["casebench"]},
    "networking": {"type": "limited", "allow_package_managers": true}}}"#;

const SCRIPT: &str =
    r#"{"turns": [{"tool_calls": [{"bash": {"command": "true"}}]}, {"text": "Done."}]}"#;

fn main() -> Result<ExitCode, AnyError> {
    let Effort { rounds, calls } = Effort::of(6, 3);
    let Some(address) = own_address() else {
        writeln!(std::io::stderr(), "NOT MEASURED: this machine has no address but loopback")?;
        return Ok(ExitCode::SUCCESS);
    };
    let scene = Scene::new(address)?;
    let with = ["--environment".to_owned(), scene.path("environment.json")?];
    scene.run(&with)?;
    let contestants = vec![
        Contestant::timed("no packages", calls, || scene.run(&[] as &[&str])),
        Contestant::timed("a layer that is there", calls, || scene.run(&with)),
        Contestant::new("a layer that is installed first", || {
            scene.remove_layers()?;
            let started = Instant::now();
            scene.run(&with)?;
            Ok(vec![started.elapsed()])
        }),
    ];
    compare("a session with one call", rounds, contestants)?;
    Ok(ExitCode::SUCCESS)
}

/// An address that is this machine's and not loopback, which a sandbox has of its own.
fn own_address() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    let v4 = addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    v4.map(IpAddr::V4).find(|address| !address.is_loopback())
}

/// An installation whose pip asks the registry, which ends with this value.
struct Scene {
    dir: tempfile::TempDir,
    registry: Child,
}

impl Scene {
    fn new(address: IpAddr) -> Result<Self, AnyError> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        for name in ["work", "registry", "home/.config/pip"] {
            std::fs::create_dir_all(dir.path().join(name))?;
        }
        let mut registry = Command::new("python3")
            .args(["-c", REGISTRY, &address.to_string()])
            .current_dir(dir.path().join("registry"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        if let Some(said) = &mut registry.stdout {
            BufReader::new(said).read_line(&mut port)?;
        }
        let scene = Self { dir, registry };
        let port = port.trim();
        let settings = format!(
            "[global]\nindex-url = http://{address}:{port}/simple\ntrusted-host = {address}\n"
        );
        scene.put("home/.config/pip/pip.conf", &settings)?;
        scene.put("environment.json", ENVIRONMENT)?;
        scene.put("script.json", SCRIPT)?;
        Ok(scene)
    }

    fn put(&self, name: &str, text: &str) -> Result<(), AnyError> {
        let file = std::fs::File::create(self.dir.path().join(name));
        Ok(file?.write_all(text.as_bytes())?)
    }

    fn path(&self, name: &str) -> Result<String, AnyError> {
        let path: PathBuf = self.dir.path().join(name);
        Ok(path.into_os_string().into_string().map_err(|_| "a directory is not UTF-8")?)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
        let home: &Path = &self.dir.path().join("home");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home);
        command.current_dir(self.dir.path().join("work"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, flags: &[impl AsRef<std::ffi::OsStr>]) -> Result<(), AnyError> {
        let model = format!("scripted:{}", self.path("script.json")?);
        succeed(self.command().args(["run", "-m", &model]).args(flags).arg("go"))
    }

    fn remove_layers(&self) -> Result<(), AnyError> {
        let listed =
            self.command().args(["env", "list", "--json"]).stdout(Stdio::piped()).output()?;
        let layers: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout)?;
        for key in layers.iter().filter_map(|layer| layer["key"].as_str()) {
            succeed(self.command().args(["env", "rm", key]))?;
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.registry.kill());
        drop(self.registry.wait());
    }
}

fn succeed(command: &mut Command) -> Result<(), AnyError> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
