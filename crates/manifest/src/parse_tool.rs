//! The `[tool]` table.

use std::time::Duration;

use countersign_core::plan::{Filesystem, RunLimits};

use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields};
use crate::manifest::{Cedar, Evidence, RiskTier};
use crate::parse::{mode_fits, name_fits, word};
use crate::template::{self, RawPart};

pub(crate) const DAY: u64 = 24 * 60 * 60;

pub(crate) struct Tool<'a> {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) binary: Option<At<&'a str>>,
    pub(crate) callback: bool,
    pub(crate) risk_tier: RiskTier,
    pub(crate) human_approval: bool,
    pub(crate) network_egress: bool,
    pub(crate) allow_interpreter: bool,
    pub(crate) cedar: Option<Cedar>,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) limits: RunLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Oneshot,
    Session,
    Browser,
}

/// `present` are the backends that the manifest has.
pub(crate) fn read<'a>(mut table: Fields<'a>, present: &[&str], report: &mut Report) -> Tool<'a> {
    let name = table.required("name", report).filter(|n| name_fits(n, "a tool name", report));
    let version = table.required("version", report);
    if let Some(version) = &version
        && !is_semver(version.value)
    {
        report
            .warn("version_not_semver", &version.span, "`version` is no semantic version")
            .fix("write three numbers, such as `1.0.0`");
    }
    let description = table.required("description", report);
    // Other backends start nothing; older manifests have `binary = ""` there.
    let binary = if present.contains(&"command") {
        table.required("binary", report)
    } else {
        table.string("binary", report).filter(|binary| !binary.value.is_empty())
    };
    let unlike = mode(&mut table, present, report);
    let dispatch = word(&mut table, "dispatch", &["exec", "callback"], "unknown_dispatch", report);
    let callback = dispatch.as_ref().is_some_and(|word| word.value == "callback");
    if let Some(span) = unlike.filter(|_| callback) {
        let message = "with `callback`, a call is one call, whatever the mode";
        report.warn("no_effect", &span, message).fix("leave out `mode`");
    }
    if let (Some(dispatch), Some(backend)) = (dispatch.filter(|_| callback), present.first()) {
        let message = format!("with `callback`, nothing uses [{backend}]");
        report.warn("no_effect", &dispatch.span, message).fix(format!("leave out [{backend}]"));
    }
    let mut limits = RunLimits::default();
    if let Some(timeout) = timeout(&mut table, "timeout_seconds", report) {
        limits.timeout = Duration::from_secs(timeout);
    }
    let risk_tier = risk_tier(&mut table, report);
    let mut flag = |key| table.boolean(key, report).is_some_and(|b| b.value);
    let human_approval = flag("human_approval");
    let network_egress = flag("network_egress");
    let allow_interpreter = flag("allow_interpreter");
    let starts = !callback && !present.iter().any(|table| matches!(*table, "http" | "mcp"));
    if let Some(mut table) = table.table("limits", report) {
        if !starts {
            report.warn("no_effect", table.span(), "[tool.limits] bounds what a command starts");
        }
        let mut limit = |key| table.bounded(key, 1..=u64::MAX, report).map(|n| n.value);
        limits.nproc = limit("nproc");
        limits.nofile = limit("nofile");
        limits.fsize_bytes = limit("fsize_bytes");
        limits.address_space_bytes = limit("address_space_bytes");
        limits.cpu_seconds = limit("cpu_seconds");
        table.finish(report);
    }
    let cedar = table.table("cedar", report).and_then(|mut table| {
        let resource = table.required("resource", report);
        let action = table.required("action", report);
        table.finish(report);
        Some(Cedar { resource: resource?.value.to_owned(), action: action?.value.to_owned() })
    });
    let evidence = table.table("evidence", report).and_then(|table| evidence(table, report));
    table.outdated("child_detection", "leave it out: all processes of a call are found", report);
    table.finish(report);
    Tool {
        name: name.map(|n| n.value.to_owned()),
        version: version.map(|v| v.value.to_owned()),
        description: description.map(|d| d.value.to_owned()),
        binary,
        callback,
        risk_tier,
        human_approval,
        network_egress,
        allow_interpreter,
        cedar,
        evidence,
        limits,
    }
}

/// Gives the place of a mode that has no table here.
fn mode(
    table: &mut Fields<'_>,
    present: &[&str],
    report: &mut Report,
) -> Option<std::ops::Range<usize>> {
    let given = table.has("mode");
    let mode = word(table, "mode", &["oneshot", "session", "browser"], "unknown_mode", report);
    let lacks = mode.as_ref().filter(|mode| mode.value != "oneshot" && present.is_empty());
    let lacks = lacks.map(|mode| mode.span.clone());
    match mode {
        Some(At { value: "session", span }) => mode_fits(Mode::Session, &span, present, report),
        Some(At { value: "browser", span }) => mode_fits(Mode::Browser, &span, present, report),
        Some(At { span, .. }) => mode_fits(Mode::Oneshot, &span, present, report),
        None if given => {}
        None => mode_fits(Mode::Oneshot, &table.span().clone(), present, report),
    }
    lacks
}

/// Seconds, at least one; more than 136 years are 136 years.
pub(crate) fn timeout(
    table: &mut Fields<'_>,
    key: &'static str,
    report: &mut Report,
) -> Option<u64> {
    let timeout = table.bounded(key, 1..=u64::MAX, report)?;
    if timeout.value > DAY {
        report.warn("long_timeout", &timeout.span, format!("`{key}` is more than a day"));
    }
    // No clock of an executor overflows by this.
    Some(timeout.value.min(u64::from(u32::MAX)))
}

pub(crate) fn risk_tier(table: &mut Fields<'_>, report: &mut Report) -> RiskTier {
    let tiers: Vec<_> = RiskTier::ALL.iter().map(|(word, _)| *word).collect();
    let tier = word(table, "risk_tier", &tiers, "unknown_risk_tier", report).map(|t| t.value);
    RiskTier::ALL.into_iter().find(|(w, _)| Some(*w) == tier).map(|(_, t)| t).unwrap_or_default()
}

fn evidence(mut table: Fields<'_>, report: &mut Report) -> Option<Evidence> {
    let dir = table.required("output_dir", report);
    let capture = table.boolean("capture", report).is_none_or(|b| b.value);
    word(&mut table, "hash", &["sha256"], "unknown_hash", report);
    table.finish(report);
    let dir = dir?;
    match template::element(dir.value) {
        Err((code, message)) => {
            report.error(code, &dir.span, message);
            return None;
        }
        Ok(token) => {
            for part in token.0 {
                let RawPart::Hole(name) = part else { continue };
                let known = ["evidence_dir", "scan_id", "session_id"];
                if !known.contains(&name.strip_prefix('_').unwrap_or(&name)) {
                    let message = format!("`{{{}}}` stands for nothing here", excerpt(&name));
                    report.error("unknown_placeholder", &dir.span, message).nearest(&name, known);
                    return None;
                }
            }
        }
    }
    let evidence = Evidence { output_dir: dir.value.to_owned(), capture };
    if let Err(message) = evidence.folder("id", "id") {
        report
            .error("bad_value", &dir.span, message)
            .fix("write one such as `{evidence_dir}/{scan_id}`");
        return None;
    }
    Some(evidence)
}

/// The `[filesystem]` table.
pub(crate) fn filesystem(mut table: Fields<'_>, report: &mut Report) -> Filesystem {
    let mut paths = |key| {
        let list = table.strings(key, report).map(|list| list.value).unwrap_or_default();
        for path in &list {
            if path.value.trim().is_empty() || path.value.contains('\0') {
                report.error("empty_value", &path.span, "a path must not be empty");
            } else if path.value.split(['/', '\\']).any(|part| part == "..") {
                report.error("bad_value", &path.span, "a path must not hold `..`");
            }
        }
        list.into_iter().map(|path| path.value.to_owned()).collect()
    };
    let found = Filesystem { read: paths("read"), write: paths("write"), create: paths("create") };
    table.finish(report);
    found
}

fn is_semver(version: &str) -> bool {
    let (core, build) = version.split_once('+').map_or((version, None), |(c, b)| (c, Some(b)));
    let (core, pre) = core.split_once('-').map_or((core, None), |(c, p)| (c, Some(p)));
    let number = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'))
    };
    let identifiers = |s: &str| {
        s.split('.')
            .all(|i| !i.is_empty() && i.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(identifiers)
        && build.is_none_or(identifiers)
}
