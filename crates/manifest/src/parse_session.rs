//! The `[session]` and `[browser]` tables.

use crate::constraints::{compile, sanitizers};
use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields};
use crate::manifest::Arg;
use crate::parse::{name_fits, word};
use crate::parse_args::{self, Args, Setting};
use crate::parse_command::{self, Program};
use crate::parse_tool::{risk_tier, timeout};
use crate::scope;
use crate::session::{Browser, Session, SubCommand};

const GIB: u64 = 1 << 30;
const FOUND: &str = "leave it out: all processes of a call are found";

pub(crate) fn session(
    mut table: Fields<'_>,
    args: &mut Args,
    program: Program<'_>,
    setting: Setting<'_>,
    report: &mut Report,
) -> Session {
    let startup = table.required("startup_command", report);
    if let Some(ready) = table.required("ready_pattern", report) {
        // Looked for in what the program writes, not held against a whole value.
        compile(&ready, false, report);
    }
    timeouts(&mut table, report);
    if let Some(mut table) = table.table("interaction", report) {
        if let Some(list) = table.strings("input_sanitize", report) {
            sanitizers(&list, "input_sanitize", report);
        }
        table.bounded("output_max_bytes", 1..=GIB, report);
        table.bounded("output_wait_ms", 1..=u64::from(u32::MAX), report);
        table.outdated("child_detection", FOUND, report);
        table.finish(report);
    }
    if let Some(sentinel) = table.string("sentinel_command", report)
        && (sentinel.value.trim().is_empty() || sentinel.value.contains(['\n', '\r', '\0']))
    {
        let message = "`sentinel_command` must be one line that is not empty";
        report.error("empty_value", &sentinel.span, message);
    }
    let commands = commands(&mut table, "session", setting, report);
    table.outdated("child_detection", FOUND, report);
    table.finish(report);
    let startup = startup
        .map(|text| parse_command::startup(&text, args, program, report))
        .unwrap_or_default();
    Session { startup, commands }
}

fn timeouts(table: &mut Fields<'_>, report: &mut Report) {
    for key in ["startup_timeout_seconds", "idle_timeout_seconds", "session_timeout_seconds"] {
        timeout(table, key, report);
    }
    table.bounded("max_interactions", 1..=u64::from(u32::MAX), report);
}

pub(crate) fn browser(mut table: Fields<'_>, setting: Setting<'_>, report: &mut Report) -> Browser {
    word(&mut table, "engine", &["cdp"], "unknown_engine", report);
    table.boolean("headless", report);
    word(&mut table, "connect", &["launch", "live"], "unknown_connect", report);
    let modes = ["accessibility_tree", "html", "text"];
    word(&mut table, "extract_mode", &modes, "unknown_extract_mode", report);
    timeouts(&mut table, report);
    if let Some(mut table) = table.table("scope", report) {
        for key in ["allowed_domains", "blocked_domains"] {
            let list = table.strings(key, report).map(|list| list.value).unwrap_or_default();
            for item in &list {
                scope::rule(item, report);
            }
        }
        table.boolean("allow_external", report);
        table.finish(report);
    }
    if let Some(table) = table.table("network", report) {
        network(table, report);
    }
    if let Some(mut table) = table.table("state", report) {
        let list = table.strings("fields", report).map(|list| list.value).unwrap_or_default();
        for field in &list {
            name_fits(field, "a field of the state", report);
        }
        table.finish(report);
    }
    let commands = commands(&mut table, "browser", setting, report);
    table.outdated("defaults", "write its `extract_mode` into [browser]", report);
    table.outdated("child_detection", FOUND, report);
    table.finish(report);
    Browser { commands }
}

fn network(mut table: Fields<'_>, report: &mut Report) {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let list = table.strings("allowed_methods", report).map(|list| list.value).unwrap_or_default();
    for method in list.iter().filter(|method| !known.contains(&method.value)) {
        let message = format!("there is no method `{}` here", excerpt(method.value));
        report.error("unknown_method", &method.span, message).nearest(method.value, known);
    }
    let list = table.strings("private_origins", report).map(|list| list.value).unwrap_or_default();
    for origin in &list {
        let url = url::Url::parse(origin.value).ok();
        let exact = url.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && matches!(url.host(), Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)))
                && url.origin().ascii_serialization() == origin.value
        });
        if !exact {
            let message = format!("`{}` is no origin with an address", excerpt(origin.value));
            report
                .error("bad_url", &origin.span, message)
                .fix("write one such as `http://127.0.0.1:8080`");
        }
    }
    table.finish(report);
}

fn commands(
    table: &mut Fields<'_>,
    mode: &str,
    setting: Setting<'_>,
    report: &mut Report,
) -> Vec<SubCommand> {
    let Some(mut commands) = table.table("commands", report) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, node) in commands.rest() {
        name_fits(&name, "a command's name", report);
        let path = format!("[{mode}.commands.{}]", excerpt(name.value));
        if let Some(fields) = Fields::of(&path, node, report) {
            found.extend(command(&name, fields, mode, setting, report));
        }
    }
    found
}

fn command(
    name: &At<&str>,
    mut table: Fields<'_>,
    mode: &str,
    setting: Setting<'_>,
    report: &mut Report,
) -> Option<SubCommand> {
    // A browser knows its commands by name; a session's is text.
    let pattern = if mode == "session" {
        table.required("pattern", report)
    } else {
        table.string("pattern", report)
    };
    let pattern = pattern.and_then(|pattern| compile(&pattern, true, report));
    let description = table.required("description", report);
    let risk_tier = risk_tier(&mut table, report);
    let human_approval = table.boolean("human_approval", report).is_some_and(|b| b.value);
    table.boolean("extract_target", report);
    table.boolean("finalize", report);
    let args = table.table("args", report).map(|args| {
        let path = format!("{mode}.commands.{}.args", excerpt(name.value));
        // A command of a session is one text: a space would part it.
        let setting = Setting { spaces_fit: false, path: &path, ..setting };
        parse_args::read(args, setting, report)
    });
    table.outdated("child_detection", FOUND, report);
    table.finish(report);
    let args: Vec<Arg> =
        args.map(|args| args.good.into_iter().map(|arg| arg.value).collect()).unwrap_or_default();
    Some(SubCommand {
        name: name.value.to_owned(),
        description: description?.value.to_owned(),
        risk_tier,
        human_approval,
        pattern,
        args,
    })
}
