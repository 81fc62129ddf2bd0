# Makes repositories below ./git and serves them over HTTP on port 80 of the address that is given, by git's own program.
# What lies below /private/ wants a token of the file `tokens`; /forbidden/ is so whatever the token is. Each request is a line
# of the file `requests`. While there is a file `hangs`, nothing is answered.
import base64, http.server, os, socket, subprocess, sys, threading, time

ROOT = os.path.abspath("git")
ENV = {"PATH": os.environ["PATH"], "HOME": ROOT, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t.example",
       "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t.example", "GIT_AUTHOR_DATE": "1700000000 +0000",
       "GIT_COMMITTER_DATE": "1700000000 +0000"}
os.makedirs(ROOT)
with open(f"{ROOT}/.gitconfig", "w") as f:
    f.write("[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n")

def git(*words, cwd=ROOT):
    return subprocess.run(["git", *words], cwd=cwd, env=ENV, check=True, capture_output=True, text=True).stdout.strip()

def commit(work, name, content):
    mode = "wb" if isinstance(content, bytes) else "w"
    with open(f"{work}/{name}", mode) as f: f.write(content)
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "-m", name, cwd=work)

hello = f"{ROOT}/hello"
git("init", "--quiet", hello)
commit(hello, "README", "one\n")
commit(hello, "README", "two\n")
os.symlink("/etc/passwd", f"{hello}/link")
commit(hello, "README", "three\n")
git("checkout", "--quiet", "-b", "dev", cwd=hello)
commit(hello, "README", "dev\n")
git("checkout", "--quiet", "-b", "secret", "main", cwd=hello)
commit(hello, "README", "secret\n")
git("checkout", "--quiet", "main", cwd=hello)
large = f"{ROOT}/large-work"
git("init", "--quiet", large)
commit(large, "noise", os.urandom(3 * 1024 * 1024))
# Two skills of one name, one that is none, and links out of one.
skilled = f"{ROOT}/skilled-work"
git("init", "--quiet", skilled)
for place, head in [(".agents/skills/demo", "name: demo\ndescription: Does it."), (".claude/skills/demo", "name: demo\ndescription: Another."),
                    (".agents/skills/broken", "name: broken")]:
    os.makedirs(f"{skilled}/{place}")
    if place == ".agents/skills/demo": os.symlink("/etc/passwd", f"{skilled}/{place}/secret")
    commit(skilled, f"{place}/SKILL.md", f"---\n{head}\n---\n\nHold the rule of the WOMBAT.\n")
for place, source in [("public/skilled.git", skilled), ("public/hello.git", hello), ("private/hello.git", hello), ("forbidden/hello.git", hello),
                      ("public/large.git", large)]:
    git("clone", "--quiet", "--bare", source, place)
git("init", "--quiet", "--bare", "public/empty.git")

lock = threading.Lock()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass

    def allowed(self):
        if not self.path.startswith("/private/"): return True
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        password = base64.b64decode(given).decode().partition(":")[2]
        return password and password in open("tokens").read().split()

    def answer(self, status, headers, body):
        with lock, open("requests", "a") as f: f.write(f"{self.command} {self.path} {status}\n")
        self.send_response(status)
        for name, value in headers: self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        while os.path.exists("hangs"): time.sleep(0.05)
        if self.path.startswith("/moved/"):
            return self.answer(302, [("Location", self.path.replace("/moved/", "/public/"))], b"")
        if self.path.startswith("/forbidden/"): return self.answer(403, [], b"")
        if not self.allowed(): return self.answer(401, [("WWW-Authenticate", 'Basic realm="t"')], b"")
        path, _, query = self.path.partition("?")
        env = {**ENV, "GIT_PROJECT_ROOT": ROOT, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
               "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
               "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self.answer(status, [(n, v) for n, v in headers if n != "Status"], body)
    do_POST = do_GET

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET
    daemon_threads = True
    # A client that was ended in the middle.
    def handle_error(self, *a): pass
threading.Thread(target=Server((sys.argv[1], 80), Handler).serve_forever, daemon=True).start()
print("up", flush=True)
# Orders, one a line: a commit on a branch, a branch that goes for good.
for line in sys.stdin:
    match line.split():
        case ["commit", text]:
            commit(hello, "README", text + "\n")
            for place in ["public", "private"]: git("push", "--quiet", f"{ROOT}/{place}/hello.git", "main", cwd=hello)
        case ["forget", branch]:
            for place in ["public", "private"]:
                bare = f"{ROOT}/{place}/hello.git"
                git("update-ref", "-d", f"refs/heads/{branch}", cwd=bare)
                git("gc", "--quiet", "--prune=now", cwd=bare)
    print("done", flush=True)
