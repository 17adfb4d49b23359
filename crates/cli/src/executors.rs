//! What runs tools here, and which tools ask for more than there is.

use std::sync::Arc;

use countersign_core::plan::PlanKind;
use countersign_exec::{
    Dispatch, Evidence, ProcessConfig, ProcessExecutor, Secrets, SupervisorCommand,
};
use countersign_manifest::{BackendKind, Manifest};
use countersign_ports::executor::ToolExecutor;

use crate::config::{Config, Loaded};
use crate::hooks::Setting;
use crate::output::Failure;
use crate::secrets;

/// An executor for each kind of plan that [`missing`] lets through. `env` is what processes find.
pub(crate) fn build(
    loaded: &Loaded,
    setting: &Setting,
    secrets: Secrets,
    env: Vec<(String, String)>,
    mcp: Option<Arc<dyn ToolExecutor>>,
) -> Result<Evidence, Failure> {
    let process = ProcessExecutor::new(ProcessConfig {
        root: setting.tool_root.clone(),
        env,
        path: setting.path.clone(),
        supervisor: SupervisorCommand::this_binary(),
    });
    let process = Arc::new(process);
    let redactor = secrets.redactor().clone();
    let http = secrets::executor(loaded, setting, secrets)?;
    let dispatch = Dispatch::default()
        .with(PlanKind::Command, process.clone())
        .with(PlanKind::Executor, process)
        .with(PlanKind::Http, Arc::new(http));
    let dispatch = match mcp {
        Some(mcp) => dispatch.with(PlanKind::Mcp, mcp),
        None => dispatch,
    };
    let dispatch = dispatch.redacting(redactor);
    // Around it all: what is kept has no secret either.
    Ok(Evidence::new(loaded.state.join("evidence"), Arc::new(dispatch)))
}

/// What a tool asks for that is not there: it is not served, rather than without it.
pub(crate) fn missing(manifest: &Manifest, config: &Config) -> Option<String> {
    if let Some((server, _)) = manifest.mcp_target()
        && !config.upstream.iter().any(|upstream| upstream.name() == server)
    {
        return Some(format!("there is no [[upstream]] `{server}`"));
    }
    let backends =
        [BackendKind::Command, BackendKind::Executor, BackendKind::Http, BackendKind::Mcp];
    if !backends.contains(&manifest.backend()) {
        Some(format!("running {} tools is not there yet", manifest.backend().as_str()))
    } else if let Some(Err(why)) = manifest.evidence().map(|found| found.folder("call", "session"))
    {
        Some(format!("its [tool.evidence] has no place: {why}"))
    } else {
        let secrets = manifest.secrets();
        let unknown = secrets.iter().find(|name| !config.secrets.contains_key(**name))?;
        Some(format!("it sends the secret `{unknown}`, which [secrets] does not name"))
    }
}
