//! Text to manifest: walks the whole document and reports everything it finds.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use countersign_core::digest::Digest;
use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Report, excerpt};
use crate::fields::{At, Fields};
use crate::manifest::{Backend, Manifest};
use crate::parse_args::Setting;
use crate::parse_tool::{Mode, Tool};
use crate::project::Project;
use crate::{
    parse_args, parse_command, parse_http, parse_output, parse_session, parse_tool, scope,
};

/// Bytes of a manifest, or of a file beside it, that is read at all.
pub const MAX_FILE: usize = 1 << 20;
const BACKENDS: [&str; 5] = ["command", "http", "mcp", "session", "browser"];

impl Manifest {
    /// Reads a manifest that stands alone: [`Manifest::parse_in`] with the default project.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        Self::parse_in(&Project::default(), name, text)
    }

    /// Reads a manifest. There is one exactly if no diagnostic is an error. `name` is the
    /// file's name; it appears in no diagnostic.
    #[must_use]
    pub fn parse_in(project: &Project, name: &str, text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        document(text, |root, report| {
            if name.rsplit(['/', '\\']).next() == Some("toolclad.toml") {
                let message = "a file of custom types is no manifest";
                report.error("not_a_manifest", &(0..0), message);
                return None;
            }
            read(root, project, text, report)
        })
    }
}

/// Reads a document and puts the findings in order. Gives nothing if one is an error.
pub(crate) fn document<T>(
    text: &str,
    read: impl FnOnce(Fields<'_>, &mut Report) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let mut report = Report::default();
    let mut found = None;
    if text.len() > MAX_FILE {
        let message = format!("the file has {} bytes; at most {MAX_FILE}", text.len());
        report.error("too_large", &(0..0), message);
    } else {
        match DeTable::parse(text) {
            Ok(document) => {
                found = read(Fields::new("", 0..0, document.get_ref()), &mut report);
            }
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                report.error("syntax", &span, error.message());
            }
        }
    }
    let failed = report.failed();
    let mut all = report.all;
    all.sort_by_key(|d| (d.span.start, d.span.end));
    for diagnostic in &mut all {
        settle(&mut diagnostic.span, text);
    }
    (found.filter(|_| !failed), all)
}

/// Where a manifest has its tool's name.
pub(crate) fn name_span(text: &str) -> Range<usize> {
    let document = DeTable::parse(text).ok();
    let name = document.as_ref().and_then(|root| root.get_ref().get("tool")?.get_ref().get("name"));
    let mut span = name.map_or(0..0, toml::Spanned::span);
    settle(&mut span, text);
    span
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

fn read(
    mut root: Fields<'_>,
    project: &Project,
    text: &str,
    report: &mut Report,
) -> Option<Manifest> {
    let present: Vec<&str> = BACKENDS.into_iter().filter(|key| root.has(key)).collect();
    let has_output = root.has("output");
    let has_tool = root.has("tool");
    let tool = root.table("tool", report).map(|table| parse_tool::read(table, &present, report));
    if !has_tool {
        report.error("missing_table", &(0..0), "a manifest needs [tool]");
    }
    let args = root.table("args", report);
    let command = root.table("command", report);
    let http = root.table("http", report);
    let mcp = root.table("mcp", report);
    let session = root.table("session", report);
    let browser = root.table("browser", report);
    let own_scope = root.table("scope", report).map(|table| scope::read(table, report));
    let mut places: Vec<_> = BACKENDS.iter().filter_map(|key| root.span_of(key)).collect();
    places.sort_by_key(|span| span.start);
    if let Some((span, _)) = root.node("types") {
        report
            .error("unknown_table", &span, "a manifest has no `types`")
            .fix("move it to toolclad.toml beside the manifest");
    }
    let starts = !tool.as_ref().is_some_and(|tool| tool.callback)
        && !present.iter().any(|table| matches!(*table, "http" | "mcp"));
    let filesystem = root.table("filesystem", report).map(|table| {
        if !starts {
            report.warn("no_effect", table.span(), "[filesystem] confines what a command starts");
        }
        parse_tool::filesystem(table, report)
    });
    let output = root.table("output", report);
    root.finish(report);

    let callback = tool.as_ref().is_some_and(|tool| tool.callback);
    if !has_output && !callback {
        report
            .error("missing_table", &(0..0), "a manifest needs [output]")
            .fix("write `[output]` with `format = \"text\"`");
    }
    match present.as_slice() {
        [] if callback => {}
        [] => {
            report.error("no_backend", &(0..0), "nothing says what to run").fix("add [command]");
        }
        [_] => {}
        several => {
            let message = format!("a manifest has one backend, not {}", several.join(" and "));
            report.error("several_backends", places.get(1).unwrap_or(&(0..0)), message);
        }
    }

    let spaces_fit = command.as_ref().is_some_and(|c| c.has("exec"));
    let setting = Setting { types: &project.types, spaces_fit, path: "args" };
    let mut args =
        args.map_or_else(Default::default, |table| parse_args::read(table, setting, report));
    let program = parse_command::Program {
        binary: tool.as_ref().and_then(|t| t.binary.as_ref()),
        allow_interpreter: tool.as_ref().is_some_and(|t| t.allow_interpreter),
    };
    // Every table is read, also where one too many is there: all problems are reported.
    let mut backends = Vec::new();
    if let Some(table) = command {
        backends.push(parse_command::read(table, &mut args, program, report));
    }
    if let Some(table) = http {
        backends.push(Backend::Http(parse_http::read(table, &args, report)));
    }
    if let Some(table) = mcp {
        backends.extend(parse_http::read_mcp(table, &args, report).map(Backend::Mcp));
    }
    if let Some(table) = session {
        let session = parse_session::session(table, &mut args, program, setting, report);
        backends.push(Backend::Session(Box::new(session)));
    }
    if let Some(table) = browser {
        let browser = parse_session::browser(table, setting, report);
        backends.push(Backend::Browser(Box::new(browser)));
    }
    let output = output.map(|table| parse_output::read(table, project, report));

    let Tool { name, version, description, .. } = tool.as_ref()?;
    let (name, version, description) = (name.clone()?, version.clone()?, description.clone()?);
    let tool = tool?;
    let mut limits = tool.limits;
    let mut output = output.unwrap_or_default();
    limits.output_max_bytes = output.max_bytes;
    let args: Vec<_> = args.good.into_iter().map(|arg| arg.value).collect();
    let index: HashMap<_, _> =
        args.iter().enumerate().map(|(i, arg)| (arg.name.clone(), i)).collect();
    let digest = if project.digest.is_empty() {
        Digest::of(text)
    } else {
        Digest::of(format!("{}\n{}\n", Digest::of(text), project.digest))
    };
    let backend = if callback { Backend::Callback } else { backends.pop()? };
    // Whatever the table says: the answer of an upstream server is one JSON object.
    if let Backend::Mcp(_) = backend {
        output.format = crate::OutputFormat::Json;
    }
    Some(Manifest {
        name,
        version,
        description,
        risk_tier: tool.risk_tier,
        human_approval: tool.human_approval,
        network_egress: tool.network_egress,
        cedar: tool.cedar,
        evidence: tool.evidence,
        filesystem,
        limits,
        digest: digest.to_string(),
        args,
        index,
        backend,
        scopes: project.scope.iter().cloned().chain(own_scope.map(Arc::new)).collect(),
        output,
        own: false,
    })
}

/// Which table each mode needs.
pub(crate) fn mode_fits(mode: Mode, span: &Range<usize>, present: &[&str], report: &mut Report) {
    let (wanted, word): (&[&str], _) = match mode {
        Mode::Oneshot => (&["command", "http", "mcp"], "oneshot"),
        Mode::Session => (&["session"], "session"),
        Mode::Browser => (&["browser"], "browser"),
    };
    let foreign = present.iter().find(|table| !wanted.contains(table));
    if let ([_], Some(table)) = (present, foreign) {
        let fix = match *table {
            "session" | "browser" => format!("write `mode = \"{table}\"`"),
            _ => "leave out `mode`".to_owned(),
        };
        report
            .error("mode_differs", span, format!("mode `{word}` has no use for [{table}]"))
            .fix(fix);
    }
}

/// One of a few words.
pub(crate) fn word<'a>(
    table: &mut Fields<'a>,
    key: &'static str,
    known: &[&str],
    code: &'static str,
    report: &mut Report,
) -> Option<At<&'a str>> {
    let found = table.string(key, report)?;
    if known.contains(&found.value) {
        return Some(found);
    }
    let message = format!("there is no {key} `{}`", excerpt(found.value));
    let diagnostic = report.error(code, &found.span, message);
    diagnostic.nearest(found.value, known.iter().copied());
    if diagnostic.fix.is_none() {
        diagnostic.fix(format!("write one of: {}", known.join(", ")));
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
        let shown = excerpt(name.value);
        report.error(
            "bad_name",
            &name.span,
            format!("`{shown}` is not {what}: a lower-case letter, then at most 63 of a-z 0-9 _"),
        );
    }
    fits
}
