//! Whose approvals release a hold: factors, each a group and a count, met by distinct people.

use serde::{Deserialize, Serialize};

use crate::hold::Vote;

/// The most approvals that one list of factors can ask for.
pub const MAX_APPROVALS: u32 = 64;

/// The longest name of a group or principal, in bytes.
pub const MAX_NAME_LEN: usize = 512;

/// So many different people of one group. A group without members is never enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawFactor")]
pub struct Factor {
    group: String,
    count: u32,
}

/// From some time on, the approvals of others release the hold too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalationStep {
    /// Milliseconds since the hold was made; at least 1, and more than in the step before.
    pub after_ms: u64,
    /// Enough by themselves once all are met. What was enough before still is.
    pub factors: Vec<Factor>,
}

/// Whose approvals release a hold. There is no such thing as a policy that nobody has to meet.
///
/// All factors have to be met, and one person counts for one of them at most. One denial, by
/// anybody who is not excluded, ends the hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawPolicy")]
pub struct HoldPolicy {
    factors: Vec<Factor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    escalate: Vec<EscalationStep>,
}

/// Why there is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldPolicyError {
    /// It would be met by nobody at all.
    #[error("a policy without factors would release everything")]
    NoFactors,
    /// It would be met by nobody at all.
    #[error("the factor of group `{0}` asks for no approval")]
    ZeroCount(String),
    /// More than [`MAX_APPROVALS`].
    #[error("{0} approvals are asked for, at most {MAX_APPROVALS} can be")]
    TooMany(u64),
    /// A group or principal without a name, with a control character, or with more than
    /// [`MAX_NAME_LEN`] bytes.
    #[error("a group or principal has 1 to {MAX_NAME_LEN} bytes and no control character: {0:?}")]
    Name(String),
    /// A step of escalation that does not come after the one before.
    #[error("an escalation after {0} ms does not come after the one before")]
    Order(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFactor {
    group: String,
    count: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    factors: Vec<Factor>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    escalate: Vec<EscalationStep>,
}

impl TryFrom<RawFactor> for Factor {
    type Error = HoldPolicyError;

    fn try_from(raw: RawFactor) -> Result<Self, HoldPolicyError> {
        Self::new(raw.group, raw.count)
    }
}

impl TryFrom<RawPolicy> for HoldPolicy {
    type Error = HoldPolicyError;

    fn try_from(raw: RawPolicy) -> Result<Self, HoldPolicyError> {
        let policy = Self::new(raw.factors)?.excluding(raw.exclude)?;
        raw.escalate
            .into_iter()
            .try_fold(policy, |policy, step| policy.escalating(step.after_ms, step.factors))
    }
}

fn check_name(name: &str) -> Result<(), HoldPolicyError> {
    match name.is_empty() || name.len() > MAX_NAME_LEN || name.chars().any(char::is_control) {
        true => Err(HoldPolicyError::Name(name.chars().take(64).collect())),
        false => Ok(()),
    }
}

fn check_factors(factors: &[Factor]) -> Result<(), HoldPolicyError> {
    let sum: u64 = factors.iter().map(|factor| u64::from(factor.count)).sum();
    match sum {
        0 => Err(HoldPolicyError::NoFactors),
        sum if sum > u64::from(MAX_APPROVALS) => Err(HoldPolicyError::TooMany(sum)),
        _ => Ok(()),
    }
}

impl Factor {
    /// So many people of this group.
    ///
    /// # Errors
    /// When the group has no name or the count is 0 or above [`MAX_APPROVALS`].
    pub fn new(group: impl Into<String>, count: u32) -> Result<Self, HoldPolicyError> {
        let group = group.into();
        check_name(&group)?;
        match count {
            0 => Err(HoldPolicyError::ZeroCount(group)),
            _ if count > MAX_APPROVALS => Err(HoldPolicyError::TooMany(u64::from(count))),
            _ => Ok(Self { group, count }),
        }
    }

    /// Of whom.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// How many; at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl HoldPolicy {
    /// All of these factors.
    ///
    /// # Errors
    /// When there is none, or they ask for more than [`MAX_APPROVALS`] in all.
    pub fn new(factors: Vec<Factor>) -> Result<Self, HoldPolicyError> {
        check_factors(&factors)?;
        Ok(Self { factors, exclude: Vec::new(), escalate: Vec::new() })
    }

    /// These principals cannot answer, such as the owner of the agent that asks. The requester
    /// never can, named or not.
    ///
    /// # Errors
    /// When one has no name.
    pub fn excluding(mut self, principals: Vec<String>) -> Result<Self, HoldPolicyError> {
        principals.iter().try_for_each(|principal| check_name(principal))?;
        self.exclude.extend(principals);
        Ok(self)
    }

    /// After so many milliseconds these factors are enough as well.
    ///
    /// # Errors
    /// When there is no factor, too much is asked for, or the time is not after that of the
    /// step before.
    pub fn escalating(
        mut self,
        after_ms: u64,
        factors: Vec<Factor>,
    ) -> Result<Self, HoldPolicyError> {
        check_factors(&factors)?;
        if self.escalate.last().map_or(0, |step| step.after_ms) >= after_ms {
            return Err(HoldPolicyError::Order(after_ms));
        }
        self.escalate.push(EscalationStep { after_ms, factors });
        Ok(self)
    }

    /// What has to be met from the start.
    #[must_use]
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// Who cannot answer, beside the requester.
    #[must_use]
    pub fn excluded(&self) -> &[String] {
        &self.exclude
    }

    /// What is enough later, the earliest step first.
    #[must_use]
    pub fn escalation(&self) -> &[EscalationStep] {
        &self.escalate
    }

    /// The lists of factors of which one has to be met, after so many steps of escalation.
    pub fn routes(&self, escalated: u32) -> impl Iterator<Item = &[Factor]> {
        let steps = usize::try_from(escalated).unwrap_or(usize::MAX);
        let later = self.escalate.iter().take(steps).map(|step| step.factors.as_slice());
        std::iter::once(self.factors.as_slice()).chain(later)
    }

    /// How many steps of escalation are open so many milliseconds after the hold was made.
    #[must_use]
    pub fn steps_open(&self, since_millis: u64) -> u32 {
        let open = self.escalate.iter().take_while(|step| step.after_ms <= since_millis).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// Every group that is asked for, sooner or later, as often as it is.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.routes(u32::MAX).flatten().map(Factor::group)
    }

    /// Whether these approvals are enough. No two of them may share a person, and all must be
    /// about the call at hand.
    #[must_use]
    pub fn met(&self, escalated: u32, approvals: &[&Vote]) -> bool {
        self.routes(escalated).any(|factors| seated(factors, approvals))
    }
}

/// Whether every seat the factors have can be given to an approval of its own: a maximum
/// matching, by augmenting paths.
fn seated(factors: &[Factor], approvals: &[&Vote]) -> bool {
    let mut seats: Vec<(&Factor, Option<usize>)> = Vec::new();
    for factor in factors {
        let count = usize::try_from(factor.count).unwrap_or(usize::MAX);
        seats.extend(std::iter::repeat_n((factor, None), count));
    }
    let wanted = seats.len();
    let mut taken = 0;
    for vote in 0..approvals.len() {
        let mut tried = vec![false; seats.len()];
        taken += usize::from(seat(vote, approvals, &mut seats, &mut tried));
    }
    wanted > 0 && taken == wanted
}

/// Finds a seat for one approval, moving those who sit already where that helps.
fn seat(
    vote: usize,
    approvals: &[&Vote],
    seats: &mut Vec<(&Factor, Option<usize>)>,
    tried: &mut [bool],
) -> bool {
    let Some(approval) = approvals.get(vote) else { return false };
    for at in 0..seats.len() {
        let (Some((factor, sits)), Some(tried_here)) = (seats.get(at).copied(), tried.get_mut(at))
        else {
            return false;
        };
        if *tried_here || !approval.groups.contains(&factor.group) {
            continue;
        }
        *tried_here = true;
        if sits.is_none_or(|other| seat(other, approvals, seats, tried)) {
            if let Some((_, sits)) = seats.get_mut(at) {
                *sits = Some(vote);
            }
            return true;
        }
    }
    false
}
