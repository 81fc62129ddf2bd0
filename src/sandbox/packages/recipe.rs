//! How each manager installs into a layer, as the shell's words: a recipe is what a person would type.
//!
//! It runs in an empty directory with the packages as its arguments, `$L` as the manager's part of the layer and
//! `$PATIENCE` as the seconds that a server may be silent. It leaves a file `resolved`: a name and a version on each line.
//! Where a program is lacking it names that in `missing` and ends with [`LACKS`].

use crate::environment::packages::Manager;

/// The exit code of a recipe that lacks a program.
pub const LACKS: u8 = 90;

/// The beginning of every recipe.
const BEGIN: &str = r#"set -eu
need() { command -v "$1" > /dev/null || { echo "$1" > missing; exit 90; }; }
"#;

/// Downloads what the machine lacks and unpacks it: without root, no maintainer script can run, nor should one here.
/// Paths outside of `/usr` are led into it, where Debian has everything now.
const APT: &str = r#"need apt-get; need dpkg-deb; need tar
mkdir -p state/lists/partial cache/archives/partial etc/apt.conf.d etc/preferences.d etc/sources.list.d "$L"
for d in bin sbin lib lib32 lib64 libx32; do mkdir -p "$L/usr/$d"; ln -s "usr/$d" "$L/$d"; done
apt-get -q update -o APT::Update::Error-Mode=any
apt-get -q install --download-only --yes -- "$@"
for deb in cache/archives/*.deb; do
  [ -e "$deb" ] || continue
  echo "unpacking ${deb##*/}"
  dpkg-deb --fsys-tarfile "$deb" |
    tar -x -C "$L" --no-same-owner --no-same-permissions --keep-directory-symlink
  dpkg-deb -W --showformat='${Package} ${Version}\n' "$deb" >> unpacked
done
for spec; do
  spec=${spec%%=*}
  dpkg-query --admindir=dpkg -W -f='${Package} ${Version}\n' "${spec%%/*}" 2> /dev/null || true
done > present
touch unpacked
awk 'NF == 2 && !seen[$1]++' unpacked present > resolved
"#;

const CARGO: &str = r#"need cargo; need rustc
cargo install --locked --root "$L" -- "$@"
cargo install --list --root "$L" | sed -n 's/^\([^ ]*\) v\([^ :]*\).*:$/\1 \2/p' > resolved
"#;

/// What stands after `--` would be for a compiler; a checked name is never an option.
const GEM: &str = r#"need ruby; need gem
gem install --no-document --install-dir "$L" --bindir "$L/bin" "$@"
ruby -e 'Dir[ENV["L"] + "/specifications/*.gemspec"].sort.each { |f|
  s = Gem::Specification.load(f); puts s.name + " " + s.version.to_s }' > resolved
"#;

/// Each command is of its own module, and so is each installation.
const GO: &str = r#"need go
mkdir -p "$L/bin"
for package; do
  case $package in *@*) ;; *) package=$package@latest ;; esac
  echo "installing $package"
  GOBIN="$L/bin" go install "$package"
done
go version -m "$L"/bin/* | awk '$1 == "mod" || $1 == "dep" { print $2, $3 }' | sort -u > resolved
"#;

const NPM: &str = r#"need node; need npm
npm install --global --prefix "$L" --loglevel http -- "$@"
npm ls --global --prefix "$L" --all --parseable --long |
  sed -n 's/^[^:]*:\(.[^:]*\)@\([^@:]\{1,\}\).*$/\1 \2/p' | sort -u > resolved
"#;

/// The interpreter itself, not what chooses one and would take note of what was installed.
const PIP: &str = r#"need python3
python=$(python3 -c 'import sys; print(sys.executable)')
"$python" -m pip --version > /dev/null 2>&1 || { echo 'pip of python3' > missing; exit 90; }
"$python" -m pip install --no-input --progress-bar off --no-warn-script-location --timeout "$PATIENCE" --retries 2 \
  --target "$L" -- "$@"
"$python" -m pip list --path "$L" --format freeze | sed -n 's/==/ /p' > resolved
"#;

/// The shell's program for installing packages of a manager.
#[must_use]
pub fn script(manager: Manager) -> String {
    let own = match manager {
        Manager::Apt => APT,
        Manager::Cargo => CARGO,
        Manager::Gem => GEM,
        Manager::Go => GO,
        Manager::Npm => NPM,
        Manager::Pip => PIP,
    };
    format!("{BEGIN}{own}")
}

/// What a recipe's manager is told besides its words: to keep to its directory, to ask nobody, to be patient for so long.
#[must_use]
pub fn variables(manager: Manager, directory: &str, patience: u64) -> Vec<(&'static str, String)> {
    let here = |name: &str| format!("{directory}/{name}");
    match manager {
        Manager::Apt => vec![("APT_CONFIG", here("apt.conf"))],
        Manager::Cargo => vec![
            ("CARGO_HOME", here("cargo")),
            ("CARGO_TARGET_DIR", here("target")),
            ("CARGO_TERM_COLOR", "never".to_owned()),
            ("CARGO_HTTP_TIMEOUT", patience.to_string()),
            ("CARGO_NET_RETRY", "2".to_owned()),
        ],
        Manager::Gem => vec![("GEMRC", here("gemrc"))],
        Manager::Go => vec![
            ("GOPATH", here("go")),
            ("GOCACHE", here("cache")),
            ("GOENV", "off".to_owned()),
            // What is installed is what the machine's own Go can compile.
            ("GOTOOLCHAIN", "local".to_owned()),
        ],
        Manager::Npm => vec![
            ("NPM_CONFIG_CACHE", here("cache")),
            ("NPM_CONFIG_FETCH_TIMEOUT", format!("{patience}000")),
            ("NPM_CONFIG_FETCH_RETRIES", "2".to_owned()),
            // Its own ten seconds to a minute are more than most servers take to come back.
            ("NPM_CONFIG_FETCH_RETRY_MINTIMEOUT", "1000".to_owned()),
            ("NPM_CONFIG_FETCH_RETRY_MAXTIMEOUT", "5000".to_owned()),
            ("NPM_CONFIG_AUDIT", "false".to_owned()),
            ("NPM_CONFIG_FUND", "false".to_owned()),
            ("NPM_CONFIG_UPDATE_NOTIFIER", "false".to_owned()),
        ],
        Manager::Pip => vec![
            ("PIP_NO_CACHE_DIR", "1".to_owned()),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()),
        ],
    }
}

/// The settings of `apt` for a directory with everything that it otherwise has in `/etc` and `/var`.
#[must_use]
pub fn apt_settings(directory: &str, patience: u64) -> String {
    format!(
        "Dir::Etc \"{directory}/etc\";\nDir::State \"{directory}/state\";\nDir::State::status \"{directory}/dpkg/status\";\n\
         Dir::Cache \"{directory}/cache\";\nDir::Log \"{directory}/log\";\nDebug::NoLocking \"true\";\n\
         APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"\";\nAcquire::Languages \"none\";\n\
         Acquire::Retries \"2\";\nAcquire::http::Timeout \"{patience}\";\nAcquire::https::Timeout \"{patience}\";\n"
    )
}

/// Programs whose version decides what is installed, and the shell's words that say it.
#[must_use]
pub fn interpreters(manager: Manager) -> &'static [(&'static str, &'static str)] {
    match manager {
        // What is on the machine decides, and that has a list.
        Manager::Apt => &[],
        Manager::Cargo => &[("rustc", "rustc --version")],
        Manager::Gem => &[("ruby", "ruby -e 'print RUBY_VERSION, RUBY_PLATFORM'")],
        Manager::Go => &[("go", "go version")],
        Manager::Npm => &[("node", "node --version")],
        Manager::Pip => &[(
            "python3",
            "python3 -c 'import sys; print(\"%d.%d.%d\" % sys.version_info[:3], sys.prefix)'",
        )],
    }
}

/// The Debian package that has the manager.
#[must_use]
pub fn debian_package(manager: Manager) -> &'static str {
    match manager {
        Manager::Apt => "apt",
        Manager::Cargo => "cargo",
        Manager::Gem => "ruby",
        Manager::Go => "golang-go",
        Manager::Npm => "npm",
        Manager::Pip => "python3-pip",
    }
}
