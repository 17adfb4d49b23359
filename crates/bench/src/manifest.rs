//! What manifests cost: loading a thousand of them, beside reading the same bytes as bare TOML,
//! and planning a call with five arguments, beside hashing the plan. What the gateway adds to a
//! call of a server behind it, beside calling the server directly.

use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign_core::digest::Digest;
use countersign_manifest::{Manifest, ManifestSet};
use serde_json::{Map, Value, json};

use crate::proxy;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many manifests are loaded
    #[arg(long, default_value_t = 1000)]
    manifests: usize,
    /// Rounds; the medians are shown
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    #[command(flatten)]
    proxy: proxy::Options,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Five arguments of five types, a mapping, a conditional, a pattern and a schema.
const FIVE: &str = r#"
[tool]
name = "NAME"
version = "1.0.0"
description = "Search files"
binary = "search"
timeout_seconds = 20
risk_tier = "low"

[args.text]
type = "literal_text"
required = true

[args.path]
type = "path"
default = "."
pattern = '^[A-Za-z0-9_./-]+$'

[args.limit]
type = "integer"
min = 1
max = 1000
clamp = true
default = 50

[args.mode]
type = "enum"
allowed = ["plain", "regex"]
default = "plain"

[args.since]
type = "duration"

[command]
exec = ["search", "{_mode_flags}", "--max={limit}", "{_since}", "--text={text}", "{path}"]

[command.mappings.mode]
plain = "--fixed-strings"
regex = "--extended-regexp"

[command.conditionals.since]
when = "since != ''"
template = "--since={since}"

[output]
format = "text"

[output.schema]
type = "object"
"#;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn time(rounds: usize, mut each: impl FnMut()) -> Duration {
    let once = |each: &mut dyn FnMut()| {
        let start = Instant::now();
        each();
        start.elapsed()
    };
    median((0..rounds.max(1)).map(|_| once(&mut each)).collect())
}

pub(crate) fn run(options: &Options) {
    let files: Vec<(String, String)> = (0..options.manifests)
        .map(|i| (format!("t{i}.clad.toml"), FIVE.replace("NAME", &format!("t{i}"))))
        .collect();
    let load = time(options.rounds, || {
        let (set, found) = ManifestSet::load(black_box(files.clone()));
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(set.iter().len(), files.len());
    });
    let bare = time(options.rounds, || {
        for (_, text) in &files {
            black_box(toml::de::DeTable::parse(black_box(text)).unwrap());
        }
    });
    let (manifest, _) = Manifest::parse("t.clad.toml", &FIVE.replace("NAME", "t"));
    let manifest = manifest.unwrap();
    let args = json!({"text": "a b", "path": "src/x", "limit": 5, "mode": "regex", "since": "1h"});
    let Value::Object(args) = args else { unreachable!() };
    let calls = 20_000u32;
    let plan = |args: &Map<String, Value>| {
        for _ in 0..calls {
            black_box(manifest.plan(black_box(args)).unwrap());
        }
    };
    let plan = time(options.rounds, || plan(&args)) / calls;
    let planned = serde_json::to_vec(&manifest.plan(&args).unwrap().plan).unwrap();
    let hash = time(options.rounds, || {
        for _ in 0..calls {
            black_box(Digest::of(black_box(&planned)));
        }
    }) / calls;
    let rows = proxy::run(&options.proxy);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    if options.json {
        println!(
            "{}",
            json!({
                "manifests": files.len(),
                "load_ms": ms(load),
                "bare_toml_ms": ms(bare),
                "plan_us": us(plan),
                "hash_of_plan_us": us(hash),
                "proxy": proxy::to_json(&rows),
            })
        );
        return;
    }
    println!("loading {} manifests     {:8.2} ms", files.len(), ms(load));
    println!("  the same as bare TOML    {:8.2} ms", ms(bare));
    println!("planning five arguments    {:8.2} us", us(plan));
    println!("  hashing the plan         {:8.2} us", us(hash));
    proxy::print(&options.proxy, &rows);
}
