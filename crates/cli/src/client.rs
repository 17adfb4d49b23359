//! `countersign call` and `countersign approvals`: clients of the REST interface.

use std::process::ExitCode;
use std::time::Duration;

use countersign_core::hold::{DecisionKind, Factor, HeldAction, HoldStatus};
use countersign_core::text::visible;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::args::{Approvals, Call, Decide, Global, Grants, Remote};
use crate::config::{self, Loaded};
use crate::explain;
use crate::output::{Failure, Paint, say, say_json};
use crate::state;

pub(crate) struct Api {
    client: Client,
    base: String,
    token: Zeroizing<String>,
}

impl Api {
    pub(crate) fn new(loaded: &Loaded, remote: &Remote, role: &str) -> Result<Self, Failure> {
        let base = match &remote.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => own_gateway(loaded)?,
        };
        let token = match &remote.token {
            Some(token) => Zeroizing::new(token.clone()),
            None => state::token(&loaded.state, role).ok_or_else(|| {
                Failure::new(format!("no token of an {role}"))
                    .hint("start `countersign serve` in this folder, or give --token and --url")
            })?,
        };
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(|error| Failure::of(&error))?;
        Ok(Self { client, base, token })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let url = format!("{}/api/v1{path}", self.base);
        let mut request = self.client.request(method, &url).bearer_auth(self.token.as_str());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| {
            let connect = error.is_connect();
            let failure = Failure::of(&error);
            if connect {
                Failure::new(format!("no gateway at {}", self.base))
                    .hint("start one with `countersign serve`, or name it with --url")
            } else {
                failure
            }
        })?;
        let status = response.status();
        let value = response.json().await.map_err(|error| Failure::of(&error))?;
        Ok((status, value))
    }

    /// The answer, or the gateway's own words for why there is none.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let (status, value) = self.send(method, path, body).await?;
        if status.is_success() { Ok(value) } else { Err(refusal(status, &value)) }
    }
}

/// Where the gateway of this state folder listens. Only a running one is asked: whoever took
/// over the port of a dead one would be handed a token.
fn own_gateway(loaded: &Loaded) -> Result<String, Failure> {
    let none = || {
        Failure::new(format!("no gateway is running on {}", loaded.state.display()))
            .hint("start one with `countersign serve`, or name another with --url")
    };
    let mut lock = loaded.database().into_os_string();
    lock.push(".lock");
    let lock = std::fs::File::open(lock).map_err(|_| none())?;
    match lock.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => {}
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => return Err(none()),
    }
    let address = std::fs::read_to_string(loaded.state.join("address")).map_err(|_| none())?;
    Ok(address.trim().to_owned())
}

fn refusal(status: StatusCode, value: &Value) -> Failure {
    let error = value.get("error").and_then(Value::as_str).unwrap_or("no reason given");
    let failure = Failure::new(format!("{error} ({})", status.as_u16()));
    let decision = value.pointer("/details/decision");
    match decision {
        Some(decision) => {
            let by = decision.pointer("/approver/display").and_then(Value::as_str);
            let at = decision.get("at").and_then(Value::as_str).unwrap_or_default();
            let status =
                value.pointer("/details/status").and_then(Value::as_str).unwrap_or("ended");
            failure.hint(format!("{status} by {} at {at}", by.unwrap_or("the gateway")))
        }
        None => failure,
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))?
        .block_on(work)
}

pub(crate) fn call(global: &Global, args: &Call) -> Result<ExitCode, Failure> {
    let arguments: serde_json::Map<String, Value> = serde_json::from_str(&args.args)
        .map_err(|error| Failure::new(format!("--args is no JSON object: {error}")))?;
    let api = Api::new(&config::load(global)?, &args.remote, "agent")?;
    let body = match &args.session {
        None => json!({ "tool": args.tool, "arguments": arguments }),
        Some(session) => {
            json!({ "tool": args.tool, "arguments": arguments, "session": session })
        }
    };
    let answer = block_on(api.ask(Method::POST, "/calls", Some(body)))?;
    let failed = answer.get("is_error").and_then(Value::as_bool).unwrap_or(true);
    if global.json {
        say_json(&answer);
    } else {
        tell_call(&answer);
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn tell_call(answer: &Value) {
    let paint = Paint::stdout();
    let text = |path: &str| answer.pointer(path).and_then(Value::as_str);
    let status = text("/envelope/status").unwrap_or("error");
    if let Some(output) = text("/envelope/results/text") {
        let safe: Vec<_> = output.trim_end_matches('\n').split('\n').map(visible).collect();
        say(&safe.join("\n"));
    } else if status == "success" {
        let results = answer.pointer("/envelope/results").unwrap_or(&Value::Null);
        say(&serde_json::to_string_pretty(results).unwrap_or_default());
    }
    for path in ["/envelope/results/denied/message", "/envelope/results/error", "/envelope/stderr"]
    {
        if let Some(why) = text(path) {
            say(&paint.bad(&visible(why.trim_end())));
        }
    }
    let colour = if status == "success" { paint.good(status) } else { paint.bad(status) };
    let call = text("/call_id").unwrap_or("no call id");
    let seq = answer.pointer("/receipt/seq").and_then(Value::as_u64);
    let record = seq.map_or("not recorded".to_owned(), |seq| format!("record {seq}"));
    say(&format!("{} {colour}, {record}", paint.dim(call)));
}

pub(crate) fn approvals(global: &Global, command: &Approvals) -> Result<ExitCode, Failure> {
    let loaded = config::load(global)?;
    match command {
        Approvals::List { remote } => {
            let api = Api::new(&loaded, remote, "approver")?;
            let holds = block_on(api.ask(Method::GET, "/approvals", None))?;
            if global.json {
                say_json(&holds);
                return Ok(ExitCode::SUCCESS);
            }
            let holds = parse::<Vec<HeldAction>>(holds)?;
            if holds.is_empty() {
                say("Nothing is waiting.");
            }
            for hold in &holds {
                tell_hold(hold, false);
            }
            Ok(ExitCode::SUCCESS)
        }
        Approvals::Show { id, remote } => {
            let api = Api::new(&loaded, remote, "approver")?;
            let hold = block_on(async {
                let id = full_id(&api, id).await?;
                api.ask(Method::GET, &format!("/approvals/{id}"), None).await
            })?;
            if global.json {
                say_json(&hold);
                return Ok(ExitCode::SUCCESS);
            }
            tell_hold(&parse(hold)?, true);
            Ok(ExitCode::SUCCESS)
        }
        Approvals::Approve(args) => {
            let grant = args.session.then(|| {
                json!({
                    "max_uses": args.uses,
                    "valid_for_ms": args.minutes.saturating_mul(60_000),
                    "any_value_of": args.any,
                })
            });
            decide(global, &loaded, &args.decide, DecisionKind::Approve, grant)
        }
        Approvals::Edit(args) => crate::edit::run(global, &loaded, args),
        Approvals::Deny(args) => decide(global, &loaded, args, DecisionKind::Deny, None),
        Approvals::Claim { id, minutes, remote } => {
            let body = json!({ "minutes": minutes });
            claim(global, &loaded, (id, remote), ("claim", Some(body)))
        }
        Approvals::Release { id, remote } => {
            claim(global, &loaded, (id, remote), ("release", None))
        }
        Approvals::Explain(args) => explain::run(global, args),
    }
}

fn decide(
    global: &Global,
    loaded: &Loaded,
    args: &Decide,
    kind: DecisionKind,
    grant: Option<Value>,
) -> Result<ExitCode, Failure> {
    let api = Api::new(loaded, &args.remote, "approver")?;
    let verb = match kind {
        DecisionKind::Approve => "approve",
        DecisionKind::Deny => "deny",
    };
    let (status, answer) = block_on(async {
        let id = full_id(&api, &args.id).await?;
        let hold: HeldAction =
            parse(api.ask(Method::GET, &format!("/approvals/{id}"), None).await?)?;
        let mut body = serde_json::Map::from_iter([
            ("reason".to_owned(), json!(args.reason)),
            ("fingerprint".to_owned(), json!(hold.fingerprint)),
            ("surface".to_owned(), json!("cli")),
        ]);
        body.extend(grant.map(|grant| ("grant".to_owned(), grant)));
        if let Some(name) = &args.on_behalf_of {
            body.insert("on_behalf_of".to_owned(), json!(name));
        }
        let body = Value::Object(body);
        api.send(Method::POST, &format!("/approvals/{id}/{verb}"), Some(body)).await
    })?;
    if let Some(code) = refused(global, status, &answer)? {
        return Ok(code);
    }
    if !global.json {
        let hold: HeldAction = parse(answer)?;
        let paint = Paint::stdout();
        let done = match (kind, hold.status) {
            (DecisionKind::Approve, HoldStatus::Pending) => paint.warn("counted, not enough yet:"),
            (DecisionKind::Approve, _) => paint.good("approved"),
            (DecisionKind::Deny, _) => paint.bad("denied"),
        };
        say(&format!("{done} {}", hold.summary));
        if hold.status == HoldStatus::Pending {
            tell_policy(&hold);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what was answered, for machines, and what to exit with when the answer is no: somebody
/// was first, or the time was over. Any other refusal is a breakdown.
pub(crate) fn refused(
    global: &Global,
    status: StatusCode,
    answer: &Value,
) -> Result<Option<ExitCode>, Failure> {
    if global.json {
        say_json(answer);
    }
    if status.is_success() {
        return Ok(None);
    }
    let failure = refusal(status, answer);
    if status == StatusCode::CONFLICT || status == StatusCode::GONE {
        crate::output::fail(&failure);
        return Ok(Some(ExitCode::from(1)));
    }
    Err(failure)
}

/// Claims a hold or releases it.
fn claim(
    global: &Global,
    loaded: &Loaded,
    (id, remote): (&str, &Remote),
    (verb, body): (&str, Option<Value>),
) -> Result<ExitCode, Failure> {
    let api = Api::new(loaded, remote, "approver")?;
    let (status, answer) = block_on(async {
        let id = full_id(&api, id).await?;
        api.send(Method::POST, &format!("/approvals/{id}/{verb}"), body).await
    })?;
    if let Some(code) = refused(global, status, &answer)? {
        return Ok(code);
    }
    if !global.json {
        tell_hold(&parse(answer)?, false);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn grants(global: &Global, command: &Grants) -> Result<ExitCode, Failure> {
    let loaded = config::load(global)?;
    match command {
        Grants::List { remote } => {
            let api = Api::new(&loaded, remote, "approver")?;
            let grants = block_on(api.ask(Method::GET, "/grants", None))?;
            if global.json {
                say_json(&grants);
                return Ok(ExitCode::SUCCESS);
            }
            let grants = parse::<Vec<Value>>(grants)?;
            if grants.is_empty() {
                say("No approval covers further calls.");
            }
            for grant in &grants {
                tell_grant(grant);
            }
            Ok(ExitCode::SUCCESS)
        }
        Grants::Revoke { id, reason, remote } => {
            let api = Api::new(&loaded, remote, "approver")?;
            let answer = block_on(async {
                let grants: Vec<Value> = parse(api.ask(Method::GET, "/grants", None).await?)?;
                let ids = grants.iter().filter_map(|grant| grant.get("id").and_then(Value::as_str));
                let id = one_of(id, ids, "countersign grants list")?;
                let body = json!({ "reason": reason });
                api.ask(Method::DELETE, &format!("/grants/{id}"), Some(body)).await
            })?;
            match global.json {
                true => say_json(&answer),
                false => say("Taken back. It covers no further call."),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn tell_grant(grant: &Value) {
    let paint = Paint::stdout();
    let text =
        |key: &str| visible(grant.get(key).and_then(Value::as_str).unwrap_or("?")).into_owned();
    let number = |key: &str| grant.get(key).and_then(Value::as_u64).unwrap_or_default();
    let shown: Vec<_> = grant
        .get("as_shown")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(visible)
        .collect();
    say(&paint.bold(&text("id")));
    say(&format!("  {} by {}, session {}", text("tool"), text("agent_id"), text("session")));
    say(&match shown.is_empty() {
        true => "  with any arguments".to_owned(),
        false => format!("  with {} as approved", shown.join(", ")),
    });
    say(&format!(
        "  used {} of {} times, {}, given by {}",
        number("uses"),
        number("max_uses"),
        time_left(&text("expires_at")),
        text("granted_by")
    ));
    say("");
}

/// The one pending hold whose id begins like this; a whole id is taken as it is.
pub(crate) async fn full_id(api: &Api, id: &str) -> Result<String, Failure> {
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id.to_owned());
    }
    let holds: Vec<HeldAction> = parse(api.ask(Method::GET, "/approvals", None).await?)?;
    one_of(id, holds.iter().map(|hold| hold.id.as_str()), "countersign approvals list")
}

/// The one id that begins like this.
fn one_of<'a>(
    id: &str,
    ids: impl Iterator<Item = &'a str>,
    shown_by: &str,
) -> Result<String, Failure> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(format!("`{}` is no id", visible(id)))
            .hint(format!("`{shown_by}` shows them")));
    }
    if id.len() < 6 {
        return Err(Failure::new(format!("`{id}` is too short to mean one"))
            .hint("give six digits of its id or more"));
    }
    let mut found = ids.filter(|full| full.starts_with(id));
    match (found.next(), found.next()) {
        (Some(full), None) => Ok(full.to_owned()),
        (None, _) => Err(Failure::new(format!("there is none with an id beginning `{id}`"))
            .hint(format!("`{shown_by}` shows them"))),
        (Some(_), Some(_)) => Err(Failure::new(format!("more than one id begins `{id}`"))),
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::new(format!("the gateway's answer is not understood: {error}")))
}

fn tell_hold(hold: &HeldAction, whole: bool) {
    let paint = Paint::stdout();
    let context = &hold.context_snapshot;
    let text = |key: &str| context.get(key).and_then(Value::as_str).unwrap_or("?");
    let short = hold.fingerprint.map(|fingerprint| fingerprint.short()).unwrap_or_default();
    say(&format!(
        "{}  {}",
        paint.bold(hold.id.as_str()),
        paint.dim(&format!("fingerprint {short}"))
    ));
    say(&format!("  {}", paint.warn(&hold.summary)));
    let left = time_left(&hold.expires_at);
    say(&format!(
        "  {} by {}, risk {}, {}",
        text("tool"),
        hold.agent_id,
        text("risk"),
        match hold.status {
            HoldStatus::Pending => left,
            status => status.to_string(),
        }
    ));
    say(&format!("  held because {}", hold.reason));
    tell_policy(hold);
    if let Some(presentation) = context.get("presentation").filter(|shown| shown.is_object()) {
        tell_presentation(presentation);
    }
    if whole {
        let arguments = context.get("arguments").and_then(Value::as_array);
        for argument in arguments.into_iter().flatten() {
            let part = |key: &str| argument.get(key).and_then(Value::as_str).unwrap_or_default();
            say(&format!("    {} = {}", part("name"), part("value")));
        }
        say(&format!("  call {}, run {}", text("call_id"), text("run_id")));
        if let Some(note) = context.get("note").and_then(Value::as_str) {
            say(&format!("  {}", paint.bad(note)));
        }
    }
    say("");
}

/// Whose approvals it takes, whose there are, and who is looking at it.
pub(crate) fn tell_policy(hold: &HeldAction) {
    let paint = Paint::stdout();
    if let Some(policy) = &hold.policy {
        let routes: Vec<_> = policy.routes(hold.escalated).map(in_words).collect();
        say(&format!("  takes {}", routes.join(", or ")));
        let later = usize::try_from(hold.escalated).unwrap_or(usize::MAX);
        if let Some(step) = policy.escalation().get(later) {
            let after = Duration::from_millis(step.after_ms).as_secs_f64();
            say(&format!("    after {after} s also {}", in_words(&step.factors)));
        }
        if !policy.excluded().is_empty() {
            say(&format!("    never {}", visible(&policy.excluded().join(", "))));
        }
    }
    for vote in &hold.votes {
        let who = visible(&vote.approver.display).into_owned();
        let whose = match &vote.on_behalf_of {
            Some(delegator) => format!("{who} for {}", visible(delegator)),
            None => who,
        };
        let done = match vote.approves(hold.fingerprint) {
            true => paint.good("approved by"),
            false if vote.decision == DecisionKind::Deny => paint.bad("denied by"),
            false => paint.dim("before it was edited, approved by"),
        };
        let reason = vote.reason.as_deref().map(|reason| format!(": {}", visible(reason)));
        say(&format!("  {done} {whose}{}", reason.unwrap_or_default()));
    }
    if let Some(claim) = &hold.claim {
        let (who, left) = (visible(&claim.by.display), time_left(&claim.until));
        say(&format!("  {} is looking at it, {left}", paint.bold(&who)));
    }
}

/// Such as "2 of ops and 1 of security".
fn in_words(factors: &[Factor]) -> String {
    let words = factors.iter().map(|f| format!("{} of {}", f.count(), visible(f.group())));
    words.collect::<Vec<_>>().join(" and ")
}

/// What hooks changed of how the question is put, beside what was asked.
fn tell_presentation(presentation: &Value) {
    let paint = Paint::stdout();
    let text = |key: &str| presentation.get(key).and_then(Value::as_str);
    let hooks = presentation.get("changed_by").and_then(Value::as_array);
    let hooks: Vec<_> = hooks.into_iter().flatten().filter_map(Value::as_str).collect();
    say(&format!("  put so by {}", hooks.join(", ")));
    if let Some(note) = text("note") {
        say(&format!("    note: {}", paint.warn(note)));
    }
    for (what, key, shown) in
        [("what runs", "asked_summary", "summary"), ("asked because", "asked_reason", "reason")]
    {
        if let Some(asked) = text(key)
            && text(shown) != Some(asked)
        {
            say(&format!("    {what}: {asked}"));
        }
    }
}

fn time_left(expires_at: &str) -> String {
    let Ok(end) = chrono::DateTime::parse_from_rfc3339(expires_at) else {
        return format!("until {expires_at}");
    };
    let seconds = (end.to_utc() - chrono::Utc::now()).num_seconds();
    match seconds {
        ..=0 => "time is over".to_owned(),
        1..=119 => format!("{seconds} s left"),
        120..=7199 => format!("{} min left", seconds / 60),
        _ => format!("{} h left", seconds / 3600),
    }
}
