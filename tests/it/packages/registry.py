# Makes a registry for every manager in the current directory, and serves it on port 80 of the address that is given.
import base64, functools, hashlib, http.server, io, json, os, subprocess, sys, tarfile, threading, time, zipfile

HOST = "http://registry.example"

def put(path, data):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)

def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, text in files.items():
            entry = tarfile.TarInfo(name); entry.size = len(text); entry.mode = 0o755
            t.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()

def wheel(name, files, requires=()):
    file = f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info/"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    os.makedirs(f"simple/{name}", exist_ok=True)
    with zipfile.ZipFile(f"simple/{name}/{file}", "w", zipfile.ZIP_DEFLATED) as z:
        for path, text in files.items(): z.writestr(path, text)
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "entry_points.txt", f"[console_scripts]\n{name}-pip = {name}:main\n")
        z.writestr(info + "RECORD", "")
    put(f"simple/{name}/index.html", f'<a href="{file}">{file}</a>')

wheel("casetest", {"casetest.py": "import casedep\ndef main(): print('MARKER pip', casedep.VALUE)\n"}, ["casedep"])
wheel("casedep", {"casedep.py": "VALUE = 1\n"})
wheel("caselarge", {"caselarge.bin": b"\0" * (24 * 1024 * 1024)})

def npm(name, version, package, files):
    data = tar({"package/package.json": json.dumps({"name": name, "version": version, **package}),
                **{"package/" + path: text for path, text in files.items()}})
    put(f"npm/-/{name}-{version}.tgz", data)
    dist = {"tarball": f"{HOST}/npm/-/{name}-{version}.tgz",
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()}
    put(f"npm/{name}", json.dumps({"name": name, "dist-tags": {"latest": version},
        "versions": {version: {"name": name, "version": version, **package, "dist": dist}}}))

npm("casetest", "1.0.0", {"main": "i.js", "bin": {"casetest-npm": "i.js"}, "dependencies": {"casedep": "^2.0.0"}},
    {"i.js": "#!/usr/bin/env node\nconsole.log('MARKER npm', require('casedep'))\n"})
npm("casedep", "2.1.0", {"main": "i.js"}, {"i.js": "module.exports = 2\n"})

crate = tar({"casetest-1.0.0/Cargo.toml": "[package]\nname = 'casetest'\nversion = '1.0.0'\nedition = '2021'\n",
             "casetest-1.0.0/src/main.rs": "fn main() { println!(\"MARKER cargo\"); }\n"})
put("crates/casetest/1.0.0/download", crate)
put("index/config.json", json.dumps({"dl": f"{HOST}/crates"}))
put("index/ca/se/casetest", json.dumps({"name": "casetest", "vers": "1.0.0", "deps": [],
    "cksum": hashlib.sha256(crate).hexdigest(), "features": {}, "yanked": False}) + "\n")

module = "casetest.example/hello"
mod = f"module {module}\n\ngo 1.18\n"
out = io.BytesIO()
with zipfile.ZipFile(out, "w") as z:
    z.writestr(f"{module}@v1.2.0/go.mod", mod)
    z.writestr(f"{module}@v1.2.0/main.go", 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("MARKER go") }\n')
info = json.dumps({"Version": "v1.2.0", "Time": "2024-01-01T00:00:00Z"})
for name, data in [("@v/list", "v1.2.0\n"), ("@latest", info), ("@v/v1.2.0.info", info), ("@v/v1.2.0.mod", mod),
                   ("@v/v1.2.0.zip", out.getvalue())]:
    put(f"go/{module}/{name}", data)

def deb(name, depends, files, mode=0o755):
    root = f"deb/{name}"
    put(f"{root}/DEBIAN/control", f"Package: {name}\nVersion: 3.0-1\nArchitecture: all\nMaintainer: t <t@t.example>\n"
        + (f"Depends: {depends}\n" if depends else "") + "Description: a test\n")
    for path, text in files.items():
        put(f"{root}/{path}", text); os.chmod(f"{root}/{path}", mode)
    os.makedirs("apt", exist_ok=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, f"apt/{name}.deb"], check=True, stdout=subprocess.DEVNULL)
    data = open(f"apt/{name}.deb", "rb").read()
    control = open(f"{root}/DEBIAN/control").read()
    return f"{control}Filename: ./{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"

# The program has set-user-id and looks for its parts where Debian would put them; one file is outside of /usr.
packages = deb("casetest-apt", "casetest-data", {"bin/casetest-apt":
    "#!/bin/sh\necho \"MARKER apt $(cat /usr/share/casetest/data) $(cat /etc/casetest/settings)\"\n"}, 0o4755)
packages += deb("casetest-data", "", {"usr/share/casetest/data": "data\n", "etc/casetest/settings": "settings\n"}, 0o644)
put("apt/Packages", packages)
put("apt/Release", "Date: Mon, 01 Jan 2024 00:00:00 UTC\nSHA256:\n "
    f"{hashlib.sha256(packages.encode()).hexdigest()} {len(packages)} Packages\n")

if subprocess.run("command -v gem", shell=True, stdout=subprocess.DEVNULL).returncode == 0:
    put("gem-source/bin/casetest-gem", "#!/usr/bin/env ruby\nrequire 'casetest'\nputs \"MARKER gem #{CASETEST}\"\n")
    put("gem-source/lib/casetest.rb", "CASETEST = 4\n")
    put("gem-source/casetest.gemspec", "Gem::Specification.new do |s|\n  s.name = 'casetest'; s.version = '4.0.0'; s.summary = 'a test'\n"
        "  s.authors = ['t']; s.files = ['lib/casetest.rb', 'bin/casetest-gem']; s.executables = ['casetest-gem']\nend\n")
    os.makedirs("gems/gems")
    subprocess.run("cd gem-source && gem build --silent --force casetest.gemspec -o ../gems/gems/casetest-4.0.0.gem && "
                   "cd ../gems && gem generate_index > /dev/null", shell=True, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)

class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    # Says nothing while there is a file `hangs`, and has nothing while there is a file `lacks`.
    def do_GET(self):
        while os.path.exists("hangs"): time.sleep(0.05)
        return self.send_error(404) if os.path.exists("lacks") else super().do_GET()
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True
server = Server((sys.argv[1], 80), functools.partial(Quiet, directory="."))
threading.Thread(target=server.serve_forever, daemon=True).start()
print("up", flush=True)
sys.stdin.read()
