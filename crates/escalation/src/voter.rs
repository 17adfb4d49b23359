//! Who answers, and for whom.

use countersign_core::hold::Approver;

/// Who answers a hold, as the surface knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The person.
    pub approver: Approver,
    /// The groups the answer may count for: the person's own, or those of the one it is given
    /// for.
    pub groups: Vec<String>,
    /// The delegation by which the answer is given for somebody else.
    pub on_behalf_of: Option<Delegation>,
}

impl Voter {
    /// A person of no group: enough for a hold that any approver may answer.
    #[must_use]
    pub fn new(approver: Approver) -> Self {
        Self { approver, groups: Vec::new(), on_behalf_of: None }
    }

    /// A person of these groups.
    #[must_use]
    pub fn of(approver: Approver, groups: Vec<String>) -> Self {
        Self { approver, groups, on_behalf_of: None }
    }
}

/// One principal lets another answer for them, for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    delegator: String,
    delegate: String,
    from_millis: u64,
    until_millis: u64,
}

/// Why there is no such delegation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// One of the two has no name.
    #[error("a delegation has two principals with names")]
    Nameless,
    /// To oneself.
    #[error("`{0}` cannot delegate to themselves")]
    Self_(String),
    /// It would end before it begins.
    #[error("a delegation ends after it begins")]
    NeverInForce,
}

impl Delegation {
    /// From `from_millis` until just before `until_millis`, both since the Unix epoch.
    ///
    /// # Errors
    /// When it would never be in force, or is not between two principals.
    pub fn new(
        delegator: impl Into<String>,
        delegate: impl Into<String>,
        from_millis: u64,
        until_millis: u64,
    ) -> Result<Self, DelegationError> {
        let (delegator, delegate) = (delegator.into(), delegate.into());
        if delegator.is_empty() || delegate.is_empty() {
            return Err(DelegationError::Nameless);
        }
        if delegator == delegate {
            return Err(DelegationError::Self_(delegator));
        }
        if from_millis >= until_millis {
            return Err(DelegationError::NeverInForce);
        }
        Ok(Self { delegator, delegate, from_millis, until_millis })
    }

    /// For whom the answer is given.
    #[must_use]
    pub fn delegator(&self) -> &str {
        &self.delegator
    }

    /// Who may give it.
    #[must_use]
    pub fn delegate(&self) -> &str {
        &self.delegate
    }

    /// Whether this principal may use it at the time `now`, in milliseconds since the Unix
    /// epoch.
    #[must_use]
    pub fn covers(&self, principal: &str, now: u64) -> bool {
        self.delegate == principal && (self.from_millis..self.until_millis).contains(&now)
    }
}
