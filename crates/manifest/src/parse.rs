//! Text to manifest: walks the whole document and reports everything it finds.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::plan::RunLimits;
use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Report};
use crate::fields::{At, Fields};
use crate::manifest::{Cedar, Manifest, RiskTier};
use crate::output::{Output, OutputFormat};
use crate::{parse_args, parse_command};

/// Bytes of a manifest.
const MAX_FILE: usize = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: u64 = 24 * 60 * 60;

/// Backends that the format has besides `[command]`.
const OTHER_BACKENDS: [&str; 4] = ["http", "mcp", "session", "browser"];

impl Manifest {
    /// Reads a manifest. There is one exactly if no diagnostic is an error. `name` is the
    /// file's name; it appears in no diagnostic.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        let mut report = Report::default();
        let manifest = read(name, text, &mut report);
        let failed = report.failed();
        let mut all = report.all;
        all.sort_by_key(|d| (d.span.start, d.span.end));
        for diagnostic in &mut all {
            settle(&mut diagnostic.span, text);
        }
        (manifest.filter(|_| !failed), all)
    }
}

/// Keeps a span inside the text and on character boundaries.
fn settle(span: &mut Range<usize>, text: &str) {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    *span = start..floor(span.end).max(start);
}

fn read(name: &str, text: &str, report: &mut Report) -> Option<Manifest> {
    if text.len() > MAX_FILE {
        let message = format!("the file has {} bytes; at most {MAX_FILE}", text.len());
        report.error("too_large", &(0..0), message);
        return None;
    }
    if name.rsplit('/').next() == Some("toolclad.toml") {
        report.error("unsupported_file", &(0..0), "a file of custom types is not supported yet");
        return None;
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            report.error("syntax", &span, error.message());
            return None;
        }
    };
    let mut root = Fields::new("", 0..0, document.get_ref());
    let tool = match root.table("tool", report) {
        Some(table) => tool(table, report),
        None => {
            if !document.get_ref().contains_key("tool") {
                report.error("missing_table", &(0..0), "a manifest needs [tool]");
            }
            None
        }
    };
    let args = root.table("args", report);
    let command = root.table("command", report);
    let foreign = OTHER_BACKENDS.iter().any(|key| document.get_ref().contains_key(*key));
    root.unsupported(&OTHER_BACKENDS, report);
    root.unsupported(&["types", "scope"], report);
    let has_output = document.get_ref().contains_key("output");
    let output = root.table("output", report);
    root.finish(report);

    if !has_output {
        report
            .error("missing_table", &(0..0), "a manifest needs [output]")
            .fix("write `[output]` with `format = \"text\"`");
    }
    if document.get_ref().contains_key("command") && foreign {
        report.error("several_backends", &(0..0), "a manifest has one backend, not several");
    } else if !document.get_ref().contains_key("command") && !foreign {
        report.error("no_backend", &(0..0), "a manifest needs [command]");
    }

    let spaces_fit = command.as_ref().is_some_and(|c| c.has("exec"));
    let mut args = args.map_or_else(Default::default, |t| parse_args::read(t, spaces_fit, report));
    let binary = tool.as_ref().and_then(|t| t.binary.as_ref());
    let interpreter = tool.as_ref().is_some_and(|t| t.allow_interpreter);
    let command = command
        .map(|table| parse_command::read(table, &mut args, binary, interpreter, report))
        .unwrap_or_default();
    let output = output.map(|table| read_output(table, report));

    let tool = tool?;
    let output = output?;
    let mut limits = tool.limits;
    limits.output_max_bytes = output.max_bytes;
    let args: Vec<_> = args.good.into_iter().map(|arg| arg.value).collect();
    let index: HashMap<_, _> =
        args.iter().enumerate().map(|(i, arg)| (arg.name.clone(), i)).collect();
    Some(Manifest {
        name: tool.name?,
        version: tool.version?,
        description: tool.description?,
        risk_tier: tool.risk_tier,
        human_approval: tool.human_approval,
        cedar: tool.cedar,
        limits,
        digest: Digest::of(text).to_string(),
        args,
        index,
        command,
        output,
    })
}

struct Tool<'a> {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
    binary: Option<At<&'a str>>,
    risk_tier: RiskTier,
    human_approval: bool,
    allow_interpreter: bool,
    cedar: Option<Cedar>,
    limits: RunLimits,
}

fn tool<'a>(mut table: Fields<'a>, report: &mut Report) -> Option<Tool<'a>> {
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
    let binary = table.required("binary", report);
    word(&mut table, "mode", &["oneshot"], &["session", "browser"], "mode", report);
    word(&mut table, "dispatch", &["exec"], &["callback"], "dispatch", report);
    let mut limits = RunLimits::default();
    if let Some(timeout) = table.bounded("timeout_seconds", 1..=u64::from(u32::MAX), report) {
        limits.timeout = Duration::from_secs(timeout.value);
        if timeout.value > DAY {
            report.warn("long_timeout", &timeout.span, "`timeout_seconds` is more than a day");
        }
    }
    let tiers: Vec<_> = RiskTier::ALL.iter().map(|(word, _)| *word).collect();
    let tier = word(&mut table, "risk_tier", &tiers, &[], "risk_tier", report);
    let risk_tier = RiskTier::ALL.into_iter().find(|(w, _)| Some(*w) == tier);
    let human_approval = table.boolean("human_approval", report).is_some_and(|b| b.value);
    let allow_interpreter = table.boolean("allow_interpreter", report).is_some_and(|b| b.value);
    table.unsupported(&["network_egress", "evidence"], report);
    if let Some(mut table) = table.table("limits", report) {
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
    table.finish(report);
    Some(Tool {
        name: name.map(|n| n.value.to_owned()),
        version: version.map(|v| v.value.to_owned()),
        description: description.map(|d| d.value.to_owned()),
        binary,
        risk_tier: risk_tier.map(|(_, tier)| tier).unwrap_or_default(),
        human_approval,
        allow_interpreter,
        cedar,
        limits,
    })
}

fn read_output(mut table: Fields<'_>, report: &mut Report) -> Output {
    let formats = ["text", "json"];
    let format = word(&mut table, "format", &formats, &["jsonl", "csv", "xml"], "format", report);
    let mut output = Output {
        format: if format == Some("json") { OutputFormat::Json } else { OutputFormat::Text },
        max_bytes: RunLimits::default().output_max_bytes,
    };
    if let Some(parser) = table.string("parser", report) {
        match parser.value.strip_prefix("builtin:") {
            Some(builtin @ ("text" | "json")) => {
                if format.is_some_and(|format| format != builtin) {
                    report.warn(
                        "parser_differs",
                        &parser.span,
                        format!("output is read as {builtin}, whatever `format` says"),
                    );
                }
                output.format =
                    if builtin == "json" { OutputFormat::Json } else { OutputFormat::Text };
            }
            Some(builtin @ ("jsonl" | "csv" | "xml")) => {
                let message = format!("parser `builtin:{builtin}` is not supported yet");
                report.error("unsupported_parser", &parser.span, message);
            }
            Some(other) => {
                report
                    .error("unknown_parser", &parser.span, "there is no such built-in parser")
                    .nearest(&format!("builtin:{other}"), ["builtin:text", "builtin:json"]);
            }
            None => {
                report
                    .error(
                        "parser_not_allowed",
                        &parser.span,
                        "an executable parser runs only if it is on an allow list; there is none",
                    )
                    .fix("write `builtin:text` or `builtin:json`");
            }
        }
    }
    if let Some(envelope) = table.boolean("envelope", report)
        && !envelope.value
    {
        report.error(
            "unsupported_value",
            &envelope.span,
            "a result without envelope is not supported yet",
        );
    }
    if let Some(max) = table.bounded("max_bytes", 1..=GIB, report) {
        output.max_bytes = max.value;
    }
    table.unsupported(&["schema"], report);
    table.finish(report);
    output
}

/// One of a few words. Gives the word if this version has it.
fn word<'a>(
    table: &mut Fields<'a>,
    key: &'static str,
    supported: &[&str],
    later: &[&str],
    what: &'static str,
    report: &mut Report,
) -> Option<&'a str> {
    let found = table.string(key, report)?;
    if supported.contains(&found.value) {
        return Some(found.value);
    }
    let shown = crate::diagnostic::excerpt(found.value);
    if later.contains(&found.value) {
        let code = match what {
            "mode" => "unsupported_mode",
            "dispatch" => "unsupported_dispatch",
            _ => "unsupported_format",
        };
        report.error(code, &found.span, format!("{what} `{shown}` is not supported yet"));
    } else {
        let code = match what {
            "mode" => "unknown_mode",
            "dispatch" => "unknown_dispatch",
            "risk_tier" => "unknown_risk_tier",
            _ => "unknown_format",
        };
        let all = supported.iter().chain(later).copied();
        let diagnostic = report.error(code, &found.span, format!("there is no {what} `{shown}`"));
        diagnostic.nearest(found.value, all.clone());
        if diagnostic.fix.is_none() {
            diagnostic.fix(format!("write one of: {}", all.collect::<Vec<_>>().join(", ")));
        }
    }
    None
}

/// `[a-z][a-z0-9_]{0,63}`.
pub(crate) fn name_fits(name: &At<&str>, what: &str, report: &mut Report) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let fits = name.value.len() <= 64
        && name.value.starts_with(|c: char| c.is_ascii_lowercase())
        && name.value.bytes().all(plain);
    if !fits {
        let shown = crate::diagnostic::excerpt(name.value);
        report.error(
            "bad_name",
            &name.span,
            format!("`{shown}` is not {what}: a lower-case letter, then at most 63 of a-z 0-9 _"),
        );
    }
    fits
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
