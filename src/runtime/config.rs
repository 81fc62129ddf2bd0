//! Flags, file and environment become one checked value. The only place that reads the environment.
//!
//! Order, strongest first: flags, environment variables, the config file, defaults.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::mcp::FileMcp;
use super::registries::Registries;
use super::skills::discover::{FileSkills, SkillsConfig};
use super::web::FileWeb;
use crate::agent::rules::{Rules, RulesParams};
use crate::clock::Clock;
use crate::environment::networking::HostRule;
use crate::event::Budget;
use crate::limits::{
    PACKAGES_MAX_MIB, PACKAGES_MAX_MINUTES, PACKAGES_MAX_SILENCE_SECONDS, REPOSITORY_MAX_MIB,
    REPOSITORY_MAX_MINUTES, REPOSITORY_MAX_SILENCE_SECONDS,
};
use crate::mcp::{Mcp, McpConfig};
use crate::provider::http::{Http, HttpOptions, HttpOptionsError, Proxies, Secret};
use crate::provider::prices::{PriceRule, Prices};
use crate::provider::routes::{self, Api, Catalog, ProviderConfig, Routes, Rule};
use crate::provider::windows::{WindowRule, Windows};
use crate::store::{CommitHook, CommitPhase};
use crate::web::{Web, WebConfig};

/// The model that is used with an Anthropic key when nobody names one.
pub const ANTHROPIC_MODEL: &str = "claude-sonnet-5-5";
/// The model that is used with an OpenAI key when nobody names one.
pub const OPENAI_MODEL: &str = "gpt-5.4";

/// The environment variables of this process, read once.
#[derive(Clone, Default)]
pub struct Env(HashMap<String, String>);

impl Env {
    /// The real ones. Variables that are not UTF-8 are passed over.
    #[must_use]
    pub fn of_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(utf8).collect())
    }

    /// A made-up environment, for tests.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// `--route GLOB=PROVIDER[/MODEL]`, in order; before the file's.
    pub routes: Vec<String>,
}

/// Why there is no configuration. Names the source and the field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither HOME nor XDG variables.
    #[error("no place for data: set CASEMATE_DATA_DIR, XDG_DATA_HOME or HOME")]
    NoHome,
    /// The file that was named is not there or not readable.
    #[error("the config file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the config file {path} is wrong: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, field and what it must be.
        reason: String,
    },
    /// A route on the command line is not one.
    #[error("--route {given}: {reason}; write it as GLOB=PROVIDER or GLOB=PROVIDER/MODEL")]
    Route {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory setting is not absolute.
    #[error("{name} must be an absolute path, and is `{value}`")]
    NotAbsolute {
        /// The variable or flag.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The certificates that were named.
    #[error("SSL_CERT_FILE: {0}")]
    Certificates(#[from] HttpOptionsError),
    /// The proxy that pages are to be fetched through.
    #[error("web.proxy: {0}")]
    Proxy(String),
    /// `CASEMATE_CRASH_AT` is not `N` or `N:before`.
    #[error("CASEMATE_CRASH_AT must be a number of a commit, or that and `:before`; it is `{0}`")]
    CrashAt(String),
}

/// A place to stop dead, for the crash sweep: `CASEMATE_CRASH_AT=N` aborts after the N-th commit, `N:before` before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashAt {
    commit: u64,
    phase: CommitPhase,
}

impl CrashAt {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let (number, phase) = match text.strip_suffix(":before") {
            Some(number) => (number, CommitPhase::Before),
            None => (text, CommitPhase::After),
        };
        let commit = number.parse().map_err(|_| ConfigError::CrashAt(text.to_owned()))?;
        Ok(Self { commit, phase })
    }

    /// Aborts the process where it was told to: no destructor runs, as in a real crash.
    pub(super) fn hook(self) -> CommitHook {
        Box::new(move |commit, phase| {
            if (commit, phase) == (self.commit, self.phase) {
                std::process::abort();
            }
        })
    }
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the store is. Absolute.
    pub data_dir: PathBuf,
    /// The model of runs that name none.
    pub model: Option<String>,
    /// The user's own `AGENTS.md`, if there is one.
    pub global_instructions: Option<PathBuf>,
    /// See [`CrashAt`].
    pub crash_at: Option<CrashAt>,
    /// Where this machine's package managers get their packages.
    pub registries: Registries,
    /// What environments' packages may take.
    pub packages: FetchBounds,
    /// What cloning a repository may take.
    pub repositories: FetchBounds,
    /// More certificates to trust, as PEM.
    pub extra_certificates: Option<Vec<u8>>,
    proxies: Proxies,
    /// What models cost.
    pub prices: Prices,
    /// How much models can read.
    pub windows: Windows,
    /// Which calls of every agent are denied, asked about and allowed, besides its own rules.
    pub permissions: Rules,
    /// The model that judges calls under the policy `auto`, if there is one.
    pub judge: Option<String>,
    /// What a session may use unless it or its agent says otherwise.
    pub limits: Option<Budget>,
    /// Pages and searches.
    pub web: WebConfig,
    /// Where the user's skills lie, and whose others are trusted.
    pub skills: SkillsConfig,
    /// How MCP servers are reached, and with which credentials.
    pub mcp: McpConfig,
    providers: Vec<ProviderConfig>,
    routes: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Option<String>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    providers: BTreeMap<String, FileProvider>,
    #[serde(default)]
    routes: Vec<FileRoute>,
    #[serde(default)]
    package_managers: FilePackageManagers,
    #[serde(default)]
    repositories: FileRepositories,
    #[serde(default)]
    prices: Vec<PriceRule>,
    #[serde(default)]
    windows: Vec<WindowRule>,
    limits: Option<Budget>,
    #[serde(default)]
    permissions: FilePermissions,
    #[serde(default)]
    web: FileWeb,
    #[serde(default)]
    mcp: FileMcp,
    #[serde(default)]
    skills: FileSkills,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilePermissions {
    deny: Vec<String>,
    ask: Vec<String>,
    allow: Vec<String>,
    judge: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePackageManagers {
    /// Registries besides those that the package managers' own settings name.
    #[serde(default)]
    hosts: Vec<HostRule>,
    /// Largest that the packages of an environment may be, with what is needed to build them.
    max_mib: Option<NonZeroU32>,
    /// Longest that they may take.
    max_minutes: Option<NonZeroU32>,
    /// Longest that nothing may happen meanwhile.
    max_silence_seconds: Option<NonZeroU32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRepositories {
    /// Largest that a repository may be, once as it is kept and once as the session has it.
    max_mib: Option<NonZeroU32>,
    /// Longest that cloning one may take.
    max_minutes: Option<NonZeroU32>,
    /// Longest that its server may say nothing meanwhile.
    max_silence_seconds: Option<NonZeroU32>,
}

/// What may be taken by something that is fetched for a session: an environment's packages, a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchBounds {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Time of all of it.
    pub time: Duration,
    /// Time in which nothing happens.
    pub silence: Duration,
}

impl FetchBounds {
    fn new(mib: u64, minutes: u64, silence_seconds: u64) -> Self {
        Self {
            bytes: mib << 20,
            time: Duration::from_secs(minutes * 60),
            silence: Duration::from_secs(silence_seconds),
        }
    }

    fn of_packages(file: &FilePackageManagers) -> Self {
        Self::new(
            given_or(file.max_mib, PACKAGES_MAX_MIB),
            given_or(file.max_minutes, PACKAGES_MAX_MINUTES),
            given_or(file.max_silence_seconds, PACKAGES_MAX_SILENCE_SECONDS),
        )
    }

    fn of_repositories(file: &FileRepositories) -> Self {
        Self::new(
            given_or(file.max_mib, REPOSITORY_MAX_MIB),
            given_or(file.max_minutes, REPOSITORY_MAX_MINUTES),
            given_or(file.max_silence_seconds, REPOSITORY_MAX_SILENCE_SECONDS),
        )
    }

    /// Seconds that a manager itself gives a server: time for another try before it hangs.
    #[must_use]
    pub fn patience(&self) -> u64 {
        (self.silence.as_secs() / 4).max(10)
    }
}

fn given_or(given: Option<NonZeroU32>, own: u64) -> u64 {
    given.map_or(own, |n| n.get().into())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProvider {
    api: Option<FileApi>,
    base_url: Option<String>,
    api_key_env: Option<String>,
    constrain_calls: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileApi {
    Anthropic,
    Openai,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    r#match: String,
    to: String,
}

impl Config {
    /// Puts flags, environment and file together.
    ///
    /// # Errors
    /// Names what is wrong and where it stands.
    pub fn load(env: &Env, flags: &Overrides) -> Result<Self, ConfigError> {
        let config_dir = directory(env, "XDG_CONFIG_HOME", ".config")?;
        let (path, file) = read_file(flags, config_dir.as_deref())?;
        let at = |reason: String| ConfigError::File { path: path.clone(), reason };

        let mut providers = ProviderConfig::built_in();
        for (name, given) in file.providers {
            merge_provider(&mut providers, name, given).map_err(&at)?;
        }
        for provider in &mut providers {
            from_environment(provider, env);
            provider.check().map_err(&at)?;
        }

        let mut routes = Vec::new();
        for given in &flags.routes {
            let bad = |reason: &str| ConfigError::Route {
                given: given.clone(),
                reason: reason.to_owned(),
            };
            let (glob, to) = given.split_once('=').ok_or_else(|| bad("there is no `=`"))?;
            routes.push(Rule::new(glob, to).map_err(|e| bad(&e.to_string()))?);
        }
        for (i, route) in file.routes.iter().enumerate() {
            let rule = Rule::new(&route.r#match, &route.to);
            routes.push(rule.map_err(|e| at(format!("routes[{i}]: {e}")))?);
        }

        let home = env.get("HOME").map(PathBuf::from);
        let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));
        let skill_directories = [
            below(&config_dir, "casemate/skills"),
            below(&home, ".agents/skills"),
            below(&home, ".claude/skills"),
        ];
        let skill_directories = skill_directories.into_iter().flatten().collect();
        let skills = file.skills.checked(home.as_deref(), skill_directories).map_err(&at)?;
        let FilePermissions { deny, ask, allow, judge } = file.permissions;
        let rules = RulesParams { deny, ask, allow };
        let global =
            config_dir.map(|dir| dir.join("casemate/AGENTS.md")).filter(|path| path.is_file());
        Ok(Self {
            data_dir: data_dir(env, flags, file.data_dir)?,
            model: file.model,
            global_instructions: global,
            crash_at: env.get("CASEMATE_CRASH_AT").map(CrashAt::parse).transpose()?,
            packages: FetchBounds::of_packages(&file.package_managers),
            repositories: FetchBounds::of_repositories(&file.repositories),
            registries: Registries::find(env, file.package_managers.hosts),
            extra_certificates: certificates(env)?,
            proxies: proxies(env),
            prices: Prices::new(file.prices),
            windows: Windows::new(file.windows),
            judge: judge.map(|judge| routes::settled(&judge)),
            permissions: rules
                .validate()
                .map_err(|(field, wrong)| at(format!("permissions.{field}: {wrong}")))?,
            limits: file.limits,
            web: file.web.checked(env).map_err(&at)?,
            skills,
            mcp: file.mcp.checked(env).map_err(&at)?,
            providers,
            routes,
        })
    }

    /// Where sessions are kept, by the same flags, environment and file, without the rest of the settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn place(env: &Env, flags: &Overrides) -> Result<PathBuf, ConfigError> {
        let config_dir = directory(env, "XDG_CONFIG_HOME", ".config")?;
        let (_, file) = read_file(flags, config_dir.as_deref())?;
        data_dir(env, flags, file.data_dir)
    }

    /// The model of a run that names none: the file's, or that of the first key that is set.
    #[must_use]
    pub fn default_model(&self) -> Option<String> {
        self.model.clone().or_else(|| self.usual_models().next())
    }

    /// The models that these settings name: the default one, the usual one of each vendor whose key is set, and every
    /// route that is for one id alone.
    pub(super) fn named_models(&self) -> Vec<String> {
        let routes = self.routes.iter().filter_map(Rule::id).map(str::to_owned);
        self.model.iter().cloned().chain(self.usual_models()).chain(routes).collect()
    }

    fn usual_models(&self) -> impl Iterator<Item = String> {
        let known = [("anthropic", ANTHROPIC_MODEL), ("openai", OPENAI_MODEL)];
        let has_key = |name: &str| {
            self.providers.iter().any(|provider| provider.name == name && provider.key.is_some())
        };
        let usable = known.into_iter().filter(move |(provider, _)| has_key(provider));
        usable.map(|(provider, model)| format!("{provider}/{model}"))
    }

    /// The providers, built-in and own.
    #[must_use]
    pub fn providers(&self) -> &[ProviderConfig] {
        &self.providers
    }

    /// The catalog of models that these settings reach.
    ///
    /// # Errors
    /// If the extra certificates cannot be read.
    pub fn catalog(&self) -> Result<Catalog, ConfigError> {
        let routes = Routes::new(self.providers.clone(), self.routes.clone());
        Ok(Catalog::new(routes, Arc::new(self.http()?)))
    }

    /// The web as these settings have it.
    ///
    /// # Errors
    /// If the extra certificates cannot be read, or a proxy that is to be used speaks no HTTP.
    pub(super) fn web(&self) -> Result<Web, ConfigError> {
        let http = self.http()?;
        let proxies = match self.web.through_proxy {
            true => http.proxies().map_err(ConfigError::Proxy)?,
            false => Vec::new(),
        };
        Ok(Web::new(self.web.clone(), proxies, move || http.trust()))
    }

    /// The way to MCP servers as these settings have it.
    ///
    /// # Errors
    /// If the extra certificates cannot be read.
    pub(super) fn mcp(&self, clock: Arc<dyn Clock>) -> Result<Mcp, ConfigError> {
        let http = self.http()?;
        Ok(Mcp::new(self.mcp.clone(), clock, move || http.trust()))
    }

    fn http(&self) -> Result<Http, ConfigError> {
        let options = HttpOptions {
            extra_ca_pem: self.extra_certificates.clone(),
            proxies: self.proxies.clone(),
            ..HttpOptions::default()
        };
        Ok(Http::new(options)?)
    }
}

fn read_file(flags: &Overrides, config_dir: Option<&Path>) -> Result<(PathBuf, File), ConfigError> {
    let named = flags.config_file.clone();
    let path = named.clone().or_else(|| config_dir.map(|dir| dir.join("casemate/config.toml")));
    let Some(path) = path else { return Ok((PathBuf::new(), File::default())) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    match toml::from_str(&text) {
        Ok(file) => Ok((path, file)),
        Err(e) => Err(ConfigError::File { path, reason: e.to_string() }),
    }
}

fn merge_provider(
    providers: &mut Vec<ProviderConfig>,
    name: String,
    given: FileProvider,
) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(plain) || name == "scripted" {
        return Err(format!("providers.{name}: a name has letters, digits, `-`, `_` and `.`"));
    }
    let api = given.api.map(|api| match api {
        FileApi::Anthropic => Api::Anthropic,
        FileApi::Openai => Api::OpenAi,
    });
    if let Some(known) = providers.iter_mut().find(|provider| provider.name == name) {
        known.api = api.unwrap_or(known.api);
        known.base_url = given.base_url.unwrap_or_else(|| known.base_url.clone());
        known.key_variable = given.api_key_env.or_else(|| known.key_variable.clone());
        known.constrain_calls = given.constrain_calls.unwrap_or(known.constrain_calls);
        return Ok(());
    }
    let (Some(api), Some(base_url)) = (api, given.base_url) else {
        return Err(format!(
            "providers.{name}: a provider of your own needs `api` (\"anthropic\" or \"openai\") and `base_url`"
        ));
    };
    let key_required = given.api_key_env.is_some();
    providers.push(ProviderConfig {
        name,
        api,
        base_url,
        key: None,
        key_variable: given.api_key_env,
        key_required,
        constrain_calls: given.constrain_calls.unwrap_or(false),
    });
    Ok(())
}

/// Keys come from the environment alone; the two vendors' own variables also move their base URL.
fn from_environment(provider: &mut ProviderConfig, env: &Env) {
    let variable = provider.key_variable.as_deref();
    provider.key = variable.and_then(|name| env.get(name)).map(Secret::new);
    let moved = match provider.name.as_str() {
        "anthropic" => env.get("ANTHROPIC_BASE_URL"),
        "openai" => env.get("OPENAI_BASE_URL"),
        _ => None,
    };
    if let Some(url) = moved {
        url.clone_into(&mut provider.base_url);
    }
}

/// As other programs understand these variables, in either case of their letters.
fn proxies(env: &Env) -> Proxies {
    let get = |name: &str| env.get(name).or_else(|| env.get(&name.to_lowercase()));
    let proxy = |name| get(name).or_else(|| get("ALL_PROXY")).map(Secret::new);
    Proxies {
        plain: proxy("HTTP_PROXY"),
        secure: proxy("HTTPS_PROXY"),
        except: get("NO_PROXY").unwrap_or_default().to_owned(),
    }
}

fn data_dir(env: &Env, flags: &Overrides, file: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(dir) = &flags.data_dir {
        return std::path::absolute(dir).map_err(|_| ConfigError::NotAbsolute {
            name: "--data-dir",
            value: dir.display().to_string(),
        });
    }
    if let Some(dir) = env.get("CASEMATE_DATA_DIR") {
        return absolute("CASEMATE_DATA_DIR", dir);
    }
    if let Some(dir) = file {
        return absolute("data_dir", &dir.to_string_lossy());
    }
    let home = directory(env, "XDG_DATA_HOME", ".local/share")?;
    home.map(|dir| dir.join("casemate")).ok_or(ConfigError::NoHome)
}

/// An XDG directory: its variable, or its place below HOME.
fn directory(
    env: &Env,
    variable: &'static str,
    below_home: &str,
) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(dir) = env.get(variable) {
        return absolute(variable, dir).map(Some);
    }
    let home = env.get("HOME").map(|home| absolute("HOME", home)).transpose()?;
    Ok(home.map(|home| home.join(below_home)))
}

fn absolute(name: &'static str, value: &str) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(value);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(ConfigError::NotAbsolute { name, value: value.to_owned() })
}

/// Certificates of a company's own authority, where OpenSSL and its users look for them.
fn certificates(env: &Env) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(path) = env.get("SSL_CERT_FILE") else { return Ok(None) };
    std::fs::read(path).map(Some).map_err(|source| ConfigError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)], file: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), file.as_bytes())
            .unwrap();
        let flags = Overrides { config_file: Some(path), ..Overrides::default() };
        let env = Env::of(&[&[("HOME", "/home/u")], env].concat());
        Config::load(&env, &flags).map_err(|e| e.to_string())
    }

    #[test]
    fn the_data_directory_follows_its_order() {
        let check = |env: &[(&str, &str)], file: &str, expected: &str| {
            assert_eq!(load(env, file).unwrap().data_dir, Path::new(expected));
        };
        check(&[], "", "/home/u/.local/share/casemate");
        check(&[("XDG_DATA_HOME", "/x")], "", "/x/casemate");
        check(&[("XDG_DATA_HOME", "/x")], "data_dir = '/f'", "/f");
        check(&[("XDG_DATA_HOME", "/x"), ("CASEMATE_DATA_DIR", "/e")], "data_dir = '/f'", "/e");
        check(&[("CASEMATE_DATA_DIR", "")], "", "/home/u/.local/share/casemate");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |env: &[(&str, &str)], file: &str, expected: &str| {
            let error = load(env, file).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&[("CASEMATE_DATA_DIR", "rel")], "", "CASEMATE_DATA_DIR must be an absolute path");
        check(&[], "modle = 'x'", "unknown field `modle`");
        check(&[], "[providers.mine]\napi = 'openai'", "providers.mine");
        let constrained = "constrain_calls = true";
        check(&[], &format!("[providers.anthropic]\n{constrained}"), "Messages API");
        check(&[], &format!("[providers.openai]\n{constrained}"), "leave it out");
        check(&[], "[providers.scripted]\napi = 'openai'", "providers.scripted");
        check(&[], "[[routes]]\nmatch = '['\nto = 'openai'", "routes[0]");
        check(&[("CASEMATE_CRASH_AT", "soon")], "", "CASEMATE_CRASH_AT");
        check(&[("SSL_CERT_FILE", "/nowhere")], "", "/nowhere");
    }

    #[test]
    fn the_default_model_is_the_files_or_that_of_the_first_key() {
        let check = |env: &[(&str, &str)], file: &str, expected: Option<&str>| {
            assert_eq!(load(env, file).unwrap().default_model().as_deref(), expected);
        };
        check(&[], "", None);
        check(&[("OPENAI_API_KEY", "k")], "", Some("openai/gpt-5.4"));
        check(
            &[("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")],
            "",
            Some("anthropic/claude-sonnet-5-5"),
        );
        check(&[("ANTHROPIC_API_KEY", "k")], "model = 'ollama/q'", Some("ollama/q"));
    }

    #[test]
    fn keys_do_not_show() {
        let config = load(&[("ANTHROPIC_API_KEY", "sk-very-secret")], "").unwrap();
        assert!(!format!("{config:?}").contains("very-secret"));
    }
}
