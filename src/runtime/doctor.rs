//! Can this machine keep the promises? Every check does the thing rather than reading about it.

use serde::Serialize;

use super::Config;
use crate::limits::LOCAL_PROBE_TIMEOUT;
use crate::mcp::Credentials;
use crate::provider::routes::Detected;
use crate::sandbox::probe;
use crate::store::{Store, StoreError};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It does not, and only something optional is lost.
    Warn,
    /// It does not, and `run` would refuse.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `sandbox`, `store`, `models`, `web` or `mcp`.
    pub area: &'static str,
    /// What was tried.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Tries everything. Bounded by the deadlines of its parts, some seconds in all.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> = probe::probe().await.into_iter().map(of_sandbox).collect();
    findings.push(store(config));
    findings.extend(models(config).await);
    findings.push(web(config));
    findings.extend(config.mcp.credentials.iter().map(of_server));
    findings
}

fn of_sandbox(check: probe::Check) -> Finding {
    let verdict = match (check.ok, check.required) {
        (true, _) => Verdict::Ok,
        (false, true) => Verdict::Fail,
        (false, false) => Verdict::Warn,
    };
    Finding {
        area: "sandbox",
        name: check.name,
        verdict,
        detail: check.detail,
        remedy: check.remedy,
    }
}

fn store(config: &Config) -> Finding {
    let dir = config.data_dir.display();
    let finding = |verdict, detail: String, remedy: Option<&str>| Finding {
        area: "store",
        name: "data directory".to_owned(),
        verdict,
        detail,
        remedy: remedy.map(str::to_owned),
    };
    match Store::open(&config.data_dir) {
        Ok(_) => finding(Verdict::Ok, format!("{dir} can be written"), None),
        Err(e @ StoreError::Locked { .. }) => {
            finding(Verdict::Warn, e.to_string(), Some("this is well if that process is yours"))
        }
        Err(e) => finding(
            Verdict::Fail,
            e.to_string(),
            Some("set CASEMATE_DATA_DIR to a directory of your own, or mend this one"),
        ),
    }
}

fn web(config: &Config) -> Finding {
    let (verdict, detail, remedy) = match &config.web.search {
        Some(provider) => (Verdict::Ok, format!("through {}", provider.name()), None),
        None => (
            Verdict::Warn,
            "no provider is set, so agents have no web_search".to_owned(),
            Some(
                "set [web.search] in config.toml: searxng, brave, tavily, exa, or a command"
                    .to_owned(),
            ),
        ),
    };
    Finding { area: "web", name: "search".to_owned(), verdict, detail, remedy }
}

/// Whether what an MCP server is to be told is there. It is not asked: a server may take that for use.
fn of_server(own: &Credentials) -> Finding {
    let set = match own.oauth {
        Some(_) => "a token is got when the server is used",
        None => "its credentials are set",
    };
    let (verdict, detail, remedy) = match &own.missing {
        None => (Verdict::Ok, set.to_owned(), None),
        Some(variable) => {
            (Verdict::Warn, format!("{variable} is not set"), Some(format!("export {variable}=…")))
        }
    };
    Finding { area: "mcp", name: own.url.clone(), verdict, detail, remedy }
}

async fn models(config: &Config) -> Vec<Finding> {
    let keys = config.providers().iter().filter(|provider| provider.key_required).map(|provider| {
        let variable = provider.key_variable.as_deref().unwrap_or("a key");
        let (verdict, detail) = match provider.key {
            Some(_) => (Verdict::Ok, format!("{variable} is set")),
            None => (Verdict::Warn, format!("{variable} is not set")),
        };
        let remedy = provider.key.is_none().then(|| format!("export {variable}=…"));
        Finding { area: "models", name: provider.name.clone(), verdict, detail, remedy }
    });
    let mut findings: Vec<_> = keys.collect();
    let local = match config.catalog() {
        Ok(catalog) => catalog.detect_local(LOCAL_PROBE_TIMEOUT).await,
        Err(_) => Vec::new(),
    };
    for Detected { provider, models } in local {
        findings.push(Finding {
            area: "models",
            name: provider,
            verdict: Verdict::Ok,
            detail: format!("a local server offers {}", models.join(", ")),
            remedy: None,
        });
    }
    if config.default_model().is_none() && !findings.iter().any(|f| f.verdict == Verdict::Ok) {
        findings.push(Finding {
            area: "models",
            name: "default model".to_owned(),
            // A run that names a model does without; what this machine promises, it keeps.
            verdict: Verdict::Warn,
            detail: "no key and no local server".to_owned(),
            remedy: Some(
                "export ANTHROPIC_API_KEY=…, or start a local server such as Ollama".to_owned(),
            ),
        });
    }
    findings
}
