//! Packages of environments: real managers against registries of the test's own, as root and as an ordinary user.

mod api;
mod builds;
mod failures;
mod installs;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::egress::lab::{Lab, find};
use crate::support::{As, Casemate, Finished, lacking, write};

/// The registries of one test, which end with this value, and casemate's machine.
pub(crate) struct Shop {
    lab: Lab,
    server: Option<Child>,
    dir: tempfile::TempDir,
}

/// What every test needs of the machine.
const TOOLS: [&str; 5] = ["python3", "npm", "apt-get", "dpkg-deb", "tar"];

impl Shop {
    /// The registries, or nothing where they cannot be made.
    pub(crate) fn open() -> Option<Self> {
        for program in TOOLS {
            if find(program).is_none() {
                lacking(program);
                return None;
            }
        }
        let lab = Lab::new()?;
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("registry.py"), include_str!("registry.py"));
        let mut command = lab.server.command("/usr/bin/python3");
        command.args(["registry.py", "93.184.216.34"]).current_dir(dir.path());
        command.env("HOME", dir.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        lab.set_apt_source("deb [trusted=yes] http://registry.example/apt ./\n");
        Some(Self { lab, server: Some(child), dir })
    }

    /// From now on nobody answers.
    pub(crate) fn close(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// From now on the registries are so: they `hang`, or have nothing.
    fn make(&self, how: &str) {
        write(&self.dir.path().join(how), "");
    }

    /// The registries are not so any more.
    fn mend(&self, how: &str) {
        std::fs::remove_file(self.dir.path().join(how)).unwrap();
    }

    /// An installation whose package managers are set up to use the registries at `host`.
    pub(crate) fn casemate(&self, who: As, host: &str) -> Casemate {
        let casemate = Casemate::of(who);
        let put = |name: &str, text: &str| {
            let path = casemate.home().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, text);
        };
        let url = format!("http://{host}");
        put(
            ".pip/pip.conf",
            &format!("[global]\nindex-url = {url}/simple\ntrusted-host = {host}\n"),
        );
        put(".npmrc", &format!("registry={url}/npm/\n"));
        put(".config/go/env", &format!("GOPROXY={url}/go\nGOSUMDB=off\n"));
        put(".gemrc", &format!(":sources:\n- {url}/gems/\n"));
        put(
            ".cargo/config.toml",
            &format!(
                "[source.crates-io]\nreplace-with = 't'\n[source.t]\nregistry = 'sparse+{url}/index/'\n\
                 [registries.private]\nindex = 'sparse+{url}/index/'\ntoken = 's3cret'\n"
            ),
        );
        casemate.give_to_user();
        casemate
    }

    pub(crate) fn run(&self, casemate: &Casemate, who: As, words: &[&str]) -> Finished {
        self.lab.casemate(casemate, who, words)
    }

    /// The layers that there are.
    pub(crate) fn list(&self, casemate: &Casemate, who: As) -> Vec<Value> {
        let listed = self.run(casemate, who, &["env", "list", "--json"]).expect(0);
        serde_json::from_str(&listed.stdout()).unwrap()
    }

    /// Whether programs are shown to the sandbox.
    pub(crate) fn shows(&self, casemate: &Casemate, who: As, check: &str) -> bool {
        let done = self.run(casemate, who, &["sandbox", "exec", "--", "sh", "-c", check]);
        done.code() == Some(0)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// A file of an environment with these packages, as JSON, which is YAML.
fn environment(casemate: &Casemate, packages: &Value) -> PathBuf {
    let file = serde_json::json!({ "config": { "type": "cloud", "packages": packages } });
    casemate.put("environment.yaml", &file.to_string())
}

/// What lies on the shelf, by the ends of its names.
fn shelf(casemate: &Casemate) -> Vec<String> {
    let entries = match std::fs::read_dir(casemate.data_dir().join("packages")) {
        // Nothing was begun yet.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.unwrap(),
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut ends: Vec<_> = names
        .filter(|name| name != "nowhere")
        .map(|name| match name.split_once('.') {
            Some((_, end)) => format!(".{end}"),
            None => "KEY".to_owned(),
        })
        .collect();
    ends.sort();
    ends
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}
