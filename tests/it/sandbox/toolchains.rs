//! What must still work: real toolchains in the `default` profile, and a browser in `trusted`, without a network.

use std::process::{Command, Stdio};

use super::{as_user, missing};
use crate::support::{As, Casemate};

/// One piece of work.
struct Work {
    name: &'static str,
    /// Programs that it needs.
    needs: &'static [&'static str],
    /// Whether CI has them.
    everywhere: bool,
    /// The profile that it is for.
    profile: &'static str,
    /// Bash that ends with 0 if it went well.
    does: &'static str,
}

const WORK: &[Work] = &[
    Work {
        name: "cargo build, run and test",
        needs: &["cargo", "cc"],
        everywhere: true,
        profile: "default",
        does: r#"
            cargo new --quiet --vcs none small && cd small
            printf '#[test]\nfn adds() { assert_eq!(1 + 1, 2); }\n' >> src/main.rs
            cargo build --quiet --offline && [ "$(cargo run --quiet --offline)" = "Hello, world!" ]
            cargo test --quiet --offline | grep -q '1 passed'"#,
    },
    Work {
        name: "python: venv and unittest",
        needs: &["python3"],
        everywhere: true,
        profile: "default",
        does: r#"
            python3 -m venv --without-pip env
            printf 'import unittest\nclass T(unittest.TestCase):\n  def test(self): self.assertEqual(1+1, 2)\n' > test_it.py
            env/bin/python -m unittest 2>&1 | grep -q ^OK"#,
    },
    Work {
        name: "python: multiprocessing",
        needs: &["python3"],
        everywhere: true,
        profile: "default",
        does: r#"
            cat > many.py <<'PY'
import multiprocessing as m
def square(n): return n * n
if __name__ == "__main__":
    for how in "fork", "spawn", "forkserver":
        with m.get_context(how).Pool(2) as pool: assert pool.map(square, range(9))[8] == 64
    q = m.Queue(); q.put(1); assert q.get() == 1
    a = m.Array("i", 4); a[0] = 7; assert a[0] == 7
    from multiprocessing.shared_memory import SharedMemory
    s = SharedMemory(create=True, size=64); s.buf[0] = 1; s.close(); s.unlink()
    print("well")
PY
            [ "$(python3 many.py)" = well ]"#,
    },
    Work {
        name: "pytest",
        needs: &["pytest"],
        everywhere: false,
        profile: "default",
        does: "printf 'def test_it(): assert 1 + 1 == 2\n' > test_it.py; pytest -q | grep -q '1 passed'",
    },
    Work {
        name: "node: a script with children, workers and a server",
        needs: &["node"],
        everywhere: true,
        profile: "default",
        does: r#"
            cat > it.js <<'JS'
const { execFileSync } = require("child_process"), { Worker } = require("worker_threads"), http = require("http");
if (execFileSync("echo", ["one"]).toString() !== "one\n") throw 1;
new Worker("require('worker_threads').parentPort.postMessage(2)", { eval: true }).on("message", (two) => {
  const server = http.createServer((_, reply) => reply.end("three")).listen(0, "127.0.0.1", () =>
    http.get({ port: server.address().port }, (r) => r.on("data", (d) => { console.log(two + " " + d); server.close(); })));
});
JS
            [ "$(node it.js)" = "2 three" ]"#,
    },
    Work {
        name: "npm test",
        needs: &["npm", "node"],
        everywhere: true,
        profile: "default",
        does: r#"
            echo '{"name":"small","version":"1.0.0","scripts":{"test":"node --test"}}' > package.json
            printf 'require("node:test")("adds", () => require("assert").equal(1 + 1, 2));\n' > it.test.js
            npm test 2>&1 | grep -q 'pass 1'"#,
    },
    Work {
        name: "go build, run and test",
        needs: &["go"],
        everywhere: true,
        profile: "default",
        does: r#"
            go mod init example.com/small
            printf 'package main\nfunc main() { println("well") }\n' > main.go
            printf 'package main\nimport "testing"\nfunc TestIt(t *testing.T) {}\n' > main_test.go
            go build -o small . && [ "$(./small 2>&1)" = well ] && [ "$(go run . 2>&1)" = well ] && go test ./... | grep -q ^ok"#,
    },
    Work {
        name: "gcc and make",
        needs: &["gcc", "make"],
        everywhere: true,
        profile: "default",
        does: r#"
            printf '#include <stdio.h>\nint main(void) { puts("well"); }\n' > it.c
            printf 'it: it.o\n\t$(CC) -o $@ $^\ncheck: it\n\t./it\n' > Makefile
            make -j4 it && make -s check | grep -q well"#,
    },
    Work {
        name: "java",
        needs: &["javac", "java"],
        everywhere: false,
        profile: "default",
        does: r#"
            printf 'class It { public static void main(String[] a) { System.out.println("well"); } }\n' > It.java
            javac It.java && [ "$(java It)" = well ]"#,
    },
    Work {
        name: "git: init, commit, branch, merge, stash",
        needs: &["git"],
        everywhere: true,
        profile: "default",
        does: r#"
            git init -q . && git config user.email a@b.c && git config user.name a
            echo one > f && git add f && git commit -qm one
            git checkout -qb other && echo two >> f && git commit -qam two
            git checkout -q - && git merge -q other && echo three >> f && git stash -q && git stash pop -q
            [ $(git log --oneline | wc -l) = 2 ] && git diff --stat | grep -q f"#,
    },
    Work {
        name: "tmux",
        needs: &["tmux"],
        everywhere: true,
        profile: "default",
        does: r#"
            tmux -f /dev/null new-session -d -s it 'sleep 60'
            tmux send-keys -t it x && tmux list-sessions | grep -q ^it: && tmux kill-server"#,
    },
    Work {
        name: "a terminal of its own",
        needs: &["script"],
        everywhere: true,
        profile: "default",
        does: "script -qec 'tty; stty size' /dev/null | grep -q /dev/pts/",
    },
    Work {
        name: "a script that waits, traps, pipes and locks",
        needs: &["flock"],
        everywhere: true,
        profile: "default",
        does: r#"
            mkfifo p; (echo through > p) & [ "$(cat p)" = through ]; wait
            flock lock -c 'echo held' | grep -q held
            timeout 1 sleep 5 || [ $? = 124 ]
            (trap 'echo caught' USR1; kill -USR1 $BASHPID) | grep -q caught
            diff <(echo a) <(echo a) && cp -a p q && tar cf - lock | tar tf - | grep -q lock"#,
    },
    Work {
        // With its own sandbox, which its log would say the lack of. CI does without its 300 MB.
        name: "chromium: a page with a script",
        needs: &["chromium"],
        everywhere: false,
        profile: "trusted",
        does: r#"
            echo '<script>document.write("well " + (40 + 2))</script>' > page.html
            chromium --headless --disable-gpu --dump-dom file://$PWD/page.html 2> log | grep -q 'well 42'
            ! grep -iq 'no usable sandbox\|no-sandbox' log"#,
    },
];

/// Whether whoever runs it has a program.
fn has(who: As, program: &str) -> bool {
    let mut look = Command::new("bash");
    let place = "PATH=$PATH:/usr/local/bin:/usr/bin:/bin; command -v -- \"$0\" && [ -x \"$(command -v -- \"$0\")\" ]";
    look.args(["-c", place, program]).stdout(Stdio::null()).stderr(Stdio::null());
    // The tests' own search path holds directories that another user cannot enter.
    as_user(&mut look, who).status().unwrap().success()
}

#[test]
fn toolchains_work_without_a_network() {
    let mut wrong = Vec::new();
    for who in As::all() {
        for work in WORK {
            if let Some(lacks) = work.needs.iter().find(|program| !has(who, program)) {
                let what = format!("{lacks}, for {} as {who:?}", work.name);
                // An ordinary user need not have what is installed in the tester's home.
                if work.everywhere && who == As::Me {
                    missing(&what);
                } else {
                    println!("LEFT OUT, missing here: {what}");
                }
                continue;
            }
            let casemate = Casemate::of(who);
            let script =
                casemate.put("work.sh", &format!("set -e\nmkdir w && cd w\n{}\n", work.does));
            let script = script.to_str().unwrap();
            let mut command = Command::new("timeout");
            let inner = casemate.command();
            command.args(["-k", "5", "120"]).arg(inner.get_program()).args([
                "sandbox",
                "exec",
                "--profile",
                work.profile,
                "--",
                "bash",
                script,
            ]);
            command
                .env_clear()
                .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.current_dir(casemate.workspace()).stdin(Stdio::null());
            let began = std::time::Instant::now();
            let output = as_user(&mut command, who).output().unwrap();
            println!(
                "{who:?}: {}: {} in {} ms",
                work.name,
                output.status,
                began.elapsed().as_millis()
            );
            if !output.status.success() {
                let text = [output.stdout, output.stderr].concat();
                wrong.push(format!("{who:?}: {}: {}", work.name, String::from_utf8_lossy(&text)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
