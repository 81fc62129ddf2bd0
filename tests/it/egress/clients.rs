//! Programs that know of nothing: curl, git, pip, npm, cargo, go, gem, apt, Python, Node and Java through the door to local servers,
//! without a variable or a setting for it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lab::{Lab, find};
use crate::support::{As, Casemate, lacking, write};

/// Serves a directory over HTTP and HTTPS, and says when it does.
const SERVER: &str = r#"
import http.server, functools, os, ssl, sys, threading
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True
handler = functools.partial(Quiet, directory=sys.argv[1])
for port in (80, 443):
    s = Server(("93.184.216.34", port), handler)
    if port == 443:
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain("cert.pem", "key.pem")
        s.socket = c.wrap_socket(s.socket, server_side=True)
    threading.Thread(target=s.serve_forever, daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"#;

/// Makes what the servers have: a page, a repository, and a package for each of pip, npm and cargo.
const PACKAGES: &str = r#"
set -e
echo MARKER > page.txt
if command -v git > /dev/null; then
  git init -q -b main src && (cd src && echo MARKER > f && git add f &&
    git -c user.name=t -c user.email=t@t.example commit -qm one)
  git clone -q --bare src repo.git && (cd repo.git && git update-server-info)
fi
/usr/bin/python3 - <<'P'
import zipfile, hashlib, json, base64, os, tarfile, io
name = "casetest-1.0-py3-none-any.whl"
os.makedirs("simple/casetest")
with zipfile.ZipFile("simple/casetest/" + name, "w") as z:
    z.writestr("casetest.py", "print('MARKER')\n")
    info = "casetest-1.0.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: casetest\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
open("simple/casetest/index.html", "w").write(f'<a href="{name}">{name}</a>')
def pack(path, files):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, "w:gz") as t:
        for inside, text in files.items():
            entry = tarfile.TarInfo(inside); entry.size = len(text)
            t.addfile(entry, io.BytesIO(text.encode()))
    return open(path, "rb").read()
package = json.dumps({"name": "casetest", "version": "1.0.0", "main": "i.js"})
tar = pack("npm/casetest-1.0.0.tgz", {"package/package.json": package, "package/i.js": "console.log('MARKER')\n"})
dist = {"tarball": "http://registry.example/npm/casetest-1.0.0.tgz",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(tar).digest()).decode()}
open("npm/casetest", "w").write(json.dumps({"name": "casetest", "dist-tags": {"latest": "1.0.0"},
    "versions": {"1.0.0": {"name": "casetest", "version": "1.0.0", "dist": dist}}}))
crate = pack("crates/casetest/1.0.0/download", {
    "casetest-1.0.0/Cargo.toml": "[package]\nname = 'casetest'\nversion = '1.0.0'\nedition = '2021'\n",
    "casetest-1.0.0/src/lib.rs": "pub const MARKER: u8 = 1;\n"})
os.makedirs("index/ca/se")
open("index/config.json", "w").write(json.dumps({"dl": "http://registry.example/crates"}))
os.makedirs("goproxy/casetest.example/m/@v")
at = "goproxy/casetest.example/m/@v/"
open(at + "list", "w").write("v1.0.0\n")
open(at + "v1.0.0.info", "w").write('{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}')
open(at + "v1.0.0.mod", "w").write("module casetest.example/m\n")
with zipfile.ZipFile(at + "v1.0.0.zip", "w") as z:
    z.writestr("casetest.example/m@v1.0.0/go.mod", "module casetest.example/m\n")
    z.writestr("casetest.example/m@v1.0.0/m.go", 'package m\nconst Marker = "MARKER"\n')
open("index/ca/se/casetest", "w").write(json.dumps({"name": "casetest", "vers": "1.0.0", "deps": [],
    "cksum": hashlib.sha256(crate).hexdigest(), "features": {}, "yanked": False}) + "\n")
P
if command -v dpkg-deb > /dev/null; then
  mkdir -p deb/DEBIAN deb/usr/share/casetest apt/pool
  echo MARKER > deb/usr/share/casetest/marker
  printf 'Package: casetest\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@t.example>\nDescription: t\n' > deb/DEBIAN/control
  dpkg-deb --root-owner-group --build deb apt/pool/casetest.deb > /dev/null
  { cat deb/DEBIAN/control; echo Filename: pool/casetest.deb; echo Size: $(stat -c %s apt/pool/casetest.deb)
    echo SHA256: $(sha256sum < apt/pool/casetest.deb | cut -d' ' -f1); } > apt/Packages
fi
if command -v gem > /dev/null; then
  ruby - <<'R'
require "rubygems/package"; require "fileutils"; require "zlib"
FileUtils.mkdir_p ["gems/gems", "gems/quick/Marshal.4.8"]
File.write "casetest.rb", "puts 'MARKER'\n"
spec = Gem::Specification.new do |s|
  s.name = "casetest"; s.version = "1.0"; s.summary = "t"; s.authors = ["t"]; s.files = ["casetest.rb"]; s.require_paths = ["."]
end
FileUtils.mv Gem::Package.build(spec, true), "gems/gems/" if Gem::DefaultUserInteraction.ui = Gem::SilentUI.new
File.binwrite "gems/quick/Marshal.4.8/casetest-1.0.gemspec.rz", Zlib.deflate(Marshal.dump(spec))
names = [["casetest", Gem::Version.new("1.0"), "ruby"]]
{ "specs" => names, "latest_specs" => names, "prerelease_specs" => [] }.each do |name, list|
  Zlib::GzipWriter.open("gems/#{name}.4.8.gz") { |out| out.write Marshal.dump(list) }
end
R
fi
"#;

const CERTIFICATE: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj \
                           /CN=registry.example -addext subjectAltName=DNS:registry.example 2> /dev/null";

const JAVA: &str = r#"
import java.net.*; import java.net.http.*;
public class Fetch {
    public static void main(String[] a) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("http://registry.example/page.txt")).build();
        System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
        System.out.print(new String(new URL("http://registry.example/page.txt").openStream().readAllBytes()));
    }
}
"#;

/// A program, the words for a shell in the workspace, and what it must print last.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("curl", "curl -sS http://registry.example/page.txt", "MARKER"),
    ("curl", "curl -sS --cacert cert.pem https://registry.example/page.txt", "MARKER"),
    ("git", "git clone -q http://registry.example/repo.git c1 && cat c1/f", "MARKER"),
    (
        "git",
        "git -c http.sslCAInfo=$PWD/cert.pem clone -q https://registry.example/repo.git c2 && cat c2/f",
        "MARKER",
    ),
    (
        "pip3",
        "/usr/bin/python3 -m pip install -q --disable-pip-version-check --target py --cert cert.pem \
         --index-url https://registry.example/simple casetest && PYTHONPATH=py /usr/bin/python3 -c 'import casetest'",
        "MARKER",
    ),
    (
        "npm",
        "npm install --silent --no-audit --no-fund --registry http://registry.example/npm/ casetest > npm.log 2>&1 || \
         cat npm.log; node -e \"require('casetest')\"",
        "MARKER",
    ),
    (
        "cargo",
        "mkdir -p .cargo app/src && printf '[registries.test]\\nindex = \"sparse+http://registry.example/index/\"\\n' > \
         .cargo/config.toml && printf '[package]\\nname=\"app\"\\nversion=\"0.1.0\"\\nedition=\"2021\"\\n[dependencies]\\n\
         casetest={version=\"1\",registry=\"test\"}\\n' > app/Cargo.toml && touch app/src/lib.rs && cd app && \
         export CARGO_HOME=$PWD/home && cargo fetch -q && ls home/registry/src/*/",
        "casetest-1.0.0",
    ),
    (
        "python3",
        "/usr/bin/python3 -c \"import urllib.request as u; print(u.urlopen('http://registry.example/page.txt').read().decode())\"",
        "MARKER",
    ),
    (
        "python3 requests",
        "/usr/bin/python3 -c \"import requests as r; print(r.get('https://registry.example/page.txt', verify='cert.pem').text)\"",
        "MARKER",
    ),
    (
        "node",
        "NODE_EXTRA_CA_CERTS=cert.pem node -e \"fetch('https://registry.example/page.txt').then(r => r.text()).then(console.log)\"",
        "MARKER",
    ),
    ("java", "java Fetch.java | sort -u", "MARKER"),
    (
        "go modules",
        "mkdir gm && cd gm && printf 'module a\n' > go.mod && printf 'package main\nimport \"casetest.example/m\"\n\
         func main() { print(m.Marker) }\n' > main.go && export GOPROXY=http://registry.example/goproxy GOSUMDB=off \
         GOFLAGS=-mod=mod GOCACHE=/tmp/go GOPATH=/tmp/gopath && go get casetest.example/m@v1.0.0 > go.log 2>&1 || \
         cat go.log; go run . 2>&1",
        "MARKER",
    ),
    (
        "gem",
        "gem install --quiet --no-document --install-dir gems --clear-sources --source http://registry.example/gems/ \
         casetest > gem.log 2>&1 || cat gem.log; GEM_PATH=$PWD/gems ruby -e 'require \"casetest\"'",
        "MARKER",
    ),
    (
        "apt-get",
        "mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts && touch apt/status && \
         echo 'deb [trusted=yes] http://registry.example/apt ./' > apt/sources && printf 'Dir \"%s/apt\";\n\
         Dir::Etc \"%s/apt\";\nDir::Etc::main \"none\";\nDir::Etc::parts \"parts\";\nDir::Etc::sourcelist \"sources\";\n\
         Dir::Etc::sourceparts \"parts\";\nDir::State \"%s/apt\";\nDir::State::status \"%s/apt/status\";\n\
         Dir::Cache \"%s/apt/cache\";\nAcquire::Languages \"none\";\n' \"$PWD\" \"$PWD\" \"$PWD\" \"$PWD\" \"$PWD\" > apt.conf && \
         export APT_CONFIG=$PWD/apt.conf && { apt-get update && apt-get download casetest; } > apt.log 2>&1 || \
         cat apt.log; dpkg-deb --fsys-tarfile casetest_1.0_all.deb | tar -xO ./usr/share/casetest/marker",
        "MARKER",
    ),
    ("go", "cd go && GOFLAGS=-mod=mod GOCACHE=/tmp/go GOPATH=/tmp/gopath go run .", "MARKER"),
];

fn is_there(program: &str) -> bool {
    match program {
        "python3 requests" => {
            let probe = Command::new("/usr/bin/python3").args(["-c", "import requests"]).output();
            probe.is_ok_and(|done| done.status.success())
        }
        "pip3" => {
            let probe = Command::new("/usr/bin/python3").args(["-m", "pip", "--version"]).output();
            probe.is_ok_and(|done| done.status.success())
        }
        "go modules" => find("go").is_some(),
        program => find(program).is_some(),
    }
}

/// Toolchains that a machine need not have; all others are demanded where everything is.
const OPTIONAL: [&str; 6] = ["cargo", "go", "go modules", "gem", "java", "python3 requests"];

fn left_out(program: &str) {
    if OPTIONAL.contains(&program) {
        eprintln!("NOT TESTED: {program}, which this machine lacks");
    } else {
        lacking(program);
    }
}

/// The servers; they end with this value.
struct Servers(Child);

impl Servers {
    fn start(lab: &Lab, dir: &Path) -> Self {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            let done =
                command.args(["-c", script]).current_dir(dir).env("HOME", dir).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        shell(PACKAGES);
        shell(CERTIFICATE);
        write(&dir.join("server.py"), SERVER);
        let mut command = lab.server.command("/usr/bin/python3");
        command.arg("server.py").arg(dir).current_dir(dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn lab() -> Option<Lab> {
    for program in ["python3", "openssl"] {
        if find(program).is_none() {
            lacking(program);
            return None;
        }
    }
    Lab::new()
}

#[test]
fn programs_reach_allowed_hosts_without_being_told_how() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _servers = Servers::start(&lab, dir.path());
    for who in As::all() {
        let casemate = Casemate::of(who);
        let certificate = std::fs::read_to_string(dir.path().join("cert.pem")).unwrap();
        casemate.put("cert.pem", &certificate);
        casemate.put("Fetch.java", JAVA);
        casemate.put("go/go.mod", "module m\n");
        casemate.put(
            "go/main.go",
            "package main\nimport (\"io\";\"net/http\";\"os\")\nfunc main(){r,e:=http.Get(\"http://registry.example/page.txt\");\
             if e!=nil{panic(e)};io.Copy(os.Stdout,r.Body)}\n",
        );
        for (program, script, expected) in CLIENTS {
            if !is_there(program) {
                left_out(program);
                continue;
            }
            let words = ["bash", "-c", &format!("env | grep -i proxy; {script}")];
            let done = lab.sandboxed(&casemate, who, &["--allow-host", "registry.example"], &words);
            assert_eq!(done.stdout().trim(), *expected, "{who:?}: {program}: {done:?}");
        }
    }
}

#[test]
fn package_managers_reach_the_registries_that_the_machine_is_set_up_for() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _servers = Servers::start(&lab, dir.path());
    for who in As::all() {
        let casemate = Casemate::of(who);
        let pip = "/usr/bin/python3 -m pip install -q --disable-pip-version-check --retries 0 --target py \
                   casetest && ls py";
        let words = ["bash", "-c", pip];
        let elsewhere = format!(
            "export PIP_INDEX_URL=http://registry.example/simple PIP_TRUSTED_HOST=registry.example; {pip}"
        );
        let aside = ["bash", "-c", &elsewhere];
        let refused = lab.sandboxed(&casemate, who, &["--allow-package-managers"], &aside);
        let sentence = "registry.example was not reached: it is not in allowed_hosts. To allow it: add `registry.example` \
                        to allowed_hosts (--allow-host registry.example).";
        assert!(refused.stderr().contains(sentence), "{who:?}: {refused:?}");
        let settings =
            "index-url = http://registry.example/simple\ntrusted-host = registry.example\n";
        std::fs::create_dir_all(casemate.home().join(".pip")).unwrap();
        write(&casemate.home().join(".pip/pip.conf"), &format!("[global]\n{settings}"));
        casemate.give_to_user();
        let done = lab.sandboxed(&casemate, who, &["--allow-package-managers"], &words).expect(0);
        assert!(done.stdout().contains("casetest.py"), "{who:?}: {done:?}");
    }
}
