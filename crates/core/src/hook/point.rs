//! The points of a run, and what a hook may answer at each.

use crate::word::words;

words! {
    /// Where in the life of a run a hook runs.
    HookPoint {
        /// A run is about to begin.
        RunStarting = "run_starting",
        /// A model's context is about to be gathered.
        BeforeContextAssembly = "before_context_assembly",
        /// The context is gathered.
        AfterContextAssembly = "after_context_assembly",
        /// The context is about to be put into a provider's form.
        BeforeProviderProjection = "before_provider_projection",
        /// A model is about to be called.
        BeforeModelCall = "before_model_call",
        /// A model has sent a piece of its answer.
        OnModelDelta = "on_model_delta",
        /// A model has answered.
        AfterModelCall = "after_model_call",
        /// An answer is about to be held against its form.
        BeforeStructuredOutputValidation = "before_structured_output_validation",
        /// An answer was held against its form.
        AfterStructuredOutputValidation = "after_structured_output_validation",
        /// A call is planned and nothing of it has happened.
        BeforeToolCall = "before_tool_call",
        /// A call has ended and its result is recorded.
        AfterToolCall = "after_tool_call",
        /// A person is about to be asked.
        BeforeApprovalRequest = "before_approval_request",
        /// A decision is recorded and nobody has learned of it.
        AfterApprovalDecision = "after_approval_decision",
        /// Another agent is about to be started.
        BeforeSubagentStart = "before_subagent_start",
        /// Another agent has ended.
        AfterSubagentTerminal = "after_subagent_terminal",
        /// A confined process is about to be started.
        BeforeIsolationProcessStart = "before_isolation_process_start",
        /// A confined process has ended.
        AfterIsolationProcessExit = "after_isolation_process_exit",
        /// Somebody wants the run to stop.
        OnRunCancelRequested = "on_run_cancel_requested",
        /// The run is about to be over.
        BeforeRunComplete = "before_run_complete",
        /// The run is over.
        AfterRunTerminal = "after_run_terminal",
        /// Context is about to be replaced by a summary.
        BeforeCompaction = "before_compaction",
        /// Context was replaced by a summary.
        AfterCompaction = "after_compaction",
    }
}

/// Rights and response classes are one to one, so they are one list.
macro_rules! rights {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        words! {
            /// What a hook may do, as its specification grants it.
            HookMutationRight { $($(#[$doc])* $variant = $word),* }
        }

        words! {
            /// What kind of answer a hook gave.
            HookResponseClass { $($(#[$doc])* $variant = $word),* }
        }

        impl HookMutationRight {
            /// The answer this right is needed for.
            #[must_use]
            pub const fn response_class(self) -> HookResponseClass {
                match self { $(Self::$variant => HookResponseClass::$variant),* }
            }
        }

        impl HookResponseClass {
            /// The right this answer needs.
            #[must_use]
            pub const fn right(self) -> HookMutationRight {
                match self { $(Self::$variant => HookMutationRight::$variant),* }
            }

            /// The variant's name, as the summaries of the peer's records spell it.
            pub(crate) const fn variant(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

rights! {
    /// Look, and change nothing.
    Observe = "observe",
    /// Add to a model's context.
    InjectContext = "inject_context",
    /// Change what a provider is sent.
    ModifyProjection = "modify_projection",
    /// Have context replaced by a summary.
    RequestCompaction = "request_compaction",
    /// Change how an answer's form is checked.
    ModifyValidationHints = "modify_validation_hints",
    /// Change the arguments of a call.
    ModifyToolRequest = "modify_tool_request",
    /// Change how a question is put to a person.
    ModifyApprovalRequest = "modify_approval_request",
    /// Refuse.
    Deny = "deny",
    /// Have a person decide.
    RequestApproval = "request_approval",
    /// Have it tried again.
    RequestRetry = "request_retry",
    /// Replace what a call returned.
    RewriteToolResult = "rewrite_tool_result",
    /// Change what another agent is started with.
    ModifySubagentRequest = "modify_subagent_request",
    /// Change what a confined process is started with.
    ModifyProcessRequest = "modify_process_request",
    /// Judge whether something may be left running.
    ValidateDetach = "validate_detach",
    /// Have usage figures put right.
    RequestUsageRollupRepair = "request_usage_rollup_repair",
    /// Have leftovers removed.
    RequestCleanupRepair = "request_cleanup_repair",
    /// Name context that must survive a summary.
    MarkProtectedContext = "mark_protected_context",
    /// Have a summary checked.
    RequestProjectionAuditRepair = "request_projection_audit_repair",
    /// Keep a run from being called complete.
    StopCompletionWithRepairNeeded = "stop_completion_with_repair_needed",
    /// End the run.
    StopRun = "stop_run",
}

impl HookPoint {
    /// What a hook may answer here beside [`HookResponseClass::Observe`].
    #[must_use]
    pub const fn changes(self) -> &'static [HookResponseClass] {
        use HookResponseClass as Class;
        match self {
            Self::RunStarting => &[Class::InjectContext, Class::StopRun],
            Self::BeforeContextAssembly => &[Class::InjectContext],
            Self::AfterContextAssembly => &[Class::RequestCompaction, Class::StopRun],
            Self::BeforeProviderProjection => &[Class::ModifyProjection, Class::StopRun],
            Self::BeforeModelCall => {
                &[Class::ModifyProjection, Class::RequestApproval, Class::StopRun]
            }
            Self::OnModelDelta | Self::AfterApprovalDecision | Self::AfterRunTerminal => &[],
            Self::AfterModelCall => &[Class::RequestRetry, Class::StopRun],
            Self::BeforeStructuredOutputValidation => &[Class::ModifyValidationHints],
            Self::AfterStructuredOutputValidation => &[Class::RequestRetry],
            Self::BeforeToolCall => {
                &[Class::ModifyToolRequest, Class::Deny, Class::RequestApproval]
            }
            Self::AfterToolCall => &[Class::RequestRetry, Class::RewriteToolResult],
            Self::BeforeApprovalRequest => &[Class::ModifyApprovalRequest, Class::Deny],
            Self::BeforeSubagentStart => &[Class::Deny, Class::ModifySubagentRequest],
            Self::AfterSubagentTerminal => &[Class::RequestUsageRollupRepair],
            Self::BeforeIsolationProcessStart => &[Class::Deny, Class::ModifyProcessRequest],
            Self::AfterIsolationProcessExit | Self::OnRunCancelRequested => {
                &[Class::RequestCleanupRepair]
            }
            Self::BeforeRunComplete => {
                &[Class::RequestRetry, Class::ValidateDetach, Class::StopCompletionWithRepairNeeded]
            }
            Self::BeforeCompaction => &[Class::MarkProtectedContext],
            Self::AfterCompaction => &[Class::RequestProjectionAuditRepair],
        }
    }

    /// Whether the matrix allows this answer here. Every point allows to observe.
    #[must_use]
    pub fn allows(self, class: HookResponseClass) -> bool {
        class == HookResponseClass::Observe || self.changes().contains(&class)
    }

    /// Whether something irreversible comes next, so that no hook here may fail open.
    #[must_use]
    pub const fn is_security_critical(self) -> bool {
        matches!(
            self,
            Self::BeforeToolCall
                | Self::BeforeApprovalRequest
                | Self::BeforeSubagentStart
                | Self::BeforeIsolationProcessStart
                | Self::BeforeRunComplete
        )
    }

    /// Whether something is over here. The reserve of a hook's queue is for these points.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::AfterSubagentTerminal
                | Self::AfterIsolationProcessExit
                | Self::BeforeRunComplete
                | Self::AfterRunTerminal
        )
    }
}
