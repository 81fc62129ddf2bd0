//! `casemate doctor`: what was tried, how it went, what to do about it.

use std::collections::BTreeMap;

use super::args::DoctorArgs;
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::terminal::{Look, Paint, neutralise};
use crate::runtime::doctor::{Finding, Verdict, examine};

/// Examines the machine. Fails if `run` would.
pub(super) async fn run(context: &Context, args: DoctorArgs) -> Result<ExitStatus, Failure> {
    let findings = examine(&context.config(&[])?).await;
    let mut out = Output::of_process();
    let text = if args.json { as_json(&findings) } else { as_text(&findings, context.talk()) };
    out.data(text)?;
    out.flush()?;
    let failed = |area: &str| findings.iter().any(|f| f.area == area && f.verdict == Verdict::Fail);
    Ok(if failed("sandbox") {
        ExitStatus::SandboxUnavailable
    } else if findings.iter().any(|f| f.verdict == Verdict::Fail) {
        ExitStatus::Failed
    } else {
        ExitStatus::Done
    })
}

fn as_json(findings: &[Finding]) -> String {
    let mut areas: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        areas.entry(finding.area).or_default().push(finding);
    }
    serde_json::to_string_pretty(&areas).expect("findings are JSON") + "\n"
}

fn as_text(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => paint.paint(Look::Good, "ok  "),
            Verdict::Warn => paint.paint(Look::Dim, "note"),
            Verdict::Fail => paint.paint(Look::Bad, "FAIL"),
        };
        let Finding { area, name, detail, .. } = finding;
        text.push_str(&format!("{mark}  {area}: {}: {}\n", neutralise(name), neutralise(detail)));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("      → {remedy}\n"));
        }
    }
    text
}
