//! `countersign approvals edit`: other arguments for a held call, shown before they count.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use countersign_core::digest::Digest;
use countersign_core::hold::{HeldAction, HoldStatus};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::args::{Edit, Global};
use crate::client::{Api, block_on, full_id, parse, refused, tell_policy};
use crate::config::Loaded;
use crate::output::{Failure, Paint, say, say_json};

pub(crate) fn run(global: &Global, loaded: &Loaded, args: &Edit) -> Result<ExitCode, Failure> {
    let arguments: Map<String, Value> = serde_json::from_str(&args.args).map_err(|error| {
        Failure::new(format!("--args is no JSON object: {error}"))
            .hint("give all arguments of the call, such as --args '{\"file\": \"b\"}'")
    })?;
    let api = Api::new(loaded, &args.decide.remote, "approver")?;
    let (id, status, preview) = block_on(async {
        let id = full_id(&api, &args.decide.id).await?;
        let body = Some(json!({ "arguments": arguments }));
        let (status, preview) =
            api.send(Method::POST, &format!("/approvals/{id}/edit"), body).await?;
        Ok::<_, Failure>((id, status, preview))
    })?;
    if !status.is_success() {
        return Ok(refused(global, status, &preview)?.unwrap_or(ExitCode::from(2)));
    }
    let fingerprint: Digest = parse(preview.get("fingerprint").cloned().unwrap_or_default())?;
    if !args.yes {
        match global.json {
            true => say_json(&preview),
            false => tell(&preview, fingerprint)?,
        }
    }
    if !confirmed(global, args, fingerprint)? {
        return Ok(ExitCode::from(1));
    }
    let body = json!({
        "arguments": arguments,
        "fingerprint": fingerprint,
        "reason": args.decide.reason,
        "on_behalf_of": args.decide.on_behalf_of,
        "surface": "cli",
    });
    let (status, answer) = block_on(async {
        api.send(Method::POST, &format!("/approvals/{id}/approve"), Some(body)).await
    })?;
    if let Some(code) = refused(global, status, &answer)? {
        return Ok(code);
    }
    if !global.json {
        let (hold, paint) = (parse::<HeldAction>(answer)?, Paint::stdout());
        let done = match hold.status {
            HoldStatus::Pending => paint.warn("edited and counted, not enough yet:"),
            _ => paint.good("approved as edited"),
        };
        say(&format!("{done} {}", hold.summary));
        if hold.status == HoldStatus::Pending {
            tell_policy(&hold);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the person wants the call as it was shown.
fn confirmed(global: &Global, args: &Edit, fingerprint: Digest) -> Result<bool, Failure> {
    if args.yes {
        let given = args.fingerprint.as_deref().unwrap_or_default();
        let (full, given) = (fingerprint.to_string(), given.trim_start_matches("sha256:"));
        let hex = full.trim_start_matches("sha256:");
        if given.len() >= 8 && hex.starts_with(given) {
            return Ok(true);
        }
        return Err(Failure::new(format!("these arguments give the fingerprint {full}"))
            .hint("look at the changed call without --yes, then confirm the fingerprint shown"));
    }
    if global.json || !std::io::stdin().is_terminal() {
        if !global.json {
            let short = fingerprint.short();
            say(&format!("Nothing has changed. To approve it so: --yes --fingerprint {short}"));
        }
        return Ok(false);
    }
    let mut out = std::io::stdout().lock();
    let asked = write!(out, "Approve the call so changed? [y/N] ").and_then(|()| out.flush());
    let mut line = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut line));
    read.map_err(|error| Failure::of(&error))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// The call as it is and as it would be.
fn tell(preview: &Value, fingerprint: Digest) -> Result<(), Failure> {
    let paint = Paint::stdout();
    let hold: HeldAction = parse(preview.get("hold").cloned().unwrap_or_default())?;
    let text = |key: &str| preview.get(key).and_then(Value::as_str).unwrap_or("?");
    let short = hold.fingerprint.map(|fingerprint| fingerprint.short()).unwrap_or_default();
    say(&format!("{}  by {}", paint.bold(hold.id.as_str()), hold.agent_id));
    say(&paint.bad(&format!("- {}", command(&hold.context_snapshot).unwrap_or(&hold.summary))));
    let context = preview.get("context_snapshot").cloned().unwrap_or_default();
    say(&paint.good(&format!("+ {}", command(&context).unwrap_or(text("summary")))));
    let (before, after) = (values(&hold.context_snapshot), values(&context));
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        match (before.get(name), after.get(name)) {
            (old, new) if old == new => {
                say(&paint.dim(&format!("    {name} = {}", old.map_or("", String::as_str))));
            }
            (old, new) => {
                if let Some(old) = old {
                    say(&paint.bad(&format!("  - {name} = {old}")));
                }
                if let Some(new) = new {
                    say(&paint.good(&format!("  + {name} = {new}")));
                }
            }
        }
    }
    say(&format!("  fingerprint {short} becomes {}", paint.bold(&fingerprint.short())));
    Ok(())
}

fn command(context: &Value) -> Option<&str> {
    context.get("command").and_then(Value::as_str)
}

fn values(context: &Value) -> BTreeMap<String, String> {
    let arguments = context.get("arguments").and_then(Value::as_array);
    let part = |argument: &Value, key: &str| {
        argument.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let pairs = arguments.into_iter().flatten().map(|a| (part(a, "name"), part(a, "value")));
    pairs.collect()
}
