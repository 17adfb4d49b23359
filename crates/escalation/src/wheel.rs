//! When the time of each hold comes: a hierarchical timer wheel over slots of a slab. Setting,
//! moving and removing a timer takes the same time however many there are.

use crate::slab::Slab;

const BITS: u32 = 6;
const SLOTS: u64 = 1 << BITS;
const LEVELS: u32 = 6;
/// Milliseconds that the wheel reaches ahead: 2.1 years, all but one bucket of the highest
/// level, which the present is in. What is later is looked at then.
const SPAN: u64 = (SLOTS - 1) << (BITS * (LEVELS - 1));
/// The bucket of what is due.
const DUE: u32 = LEVELS << BITS;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    next: u32,
    prev: u32,
    /// `NONE` when no timer is set.
    bucket: u32,
    due: u64,
}

const UNSET: Link = Link { next: NONE, prev: NONE, bucket: NONE, due: 0 };

/// Timers of slots, each at most one. Times are milliseconds on one clock that only goes
/// forward.
pub(crate) struct Wheel {
    elapsed: u64,
    /// One bit for each bucket of a level that is not empty.
    occupied: [u64; LEVELS as usize],
    heads: Vec<u32>,
    links: Slab<Link>,
}

impl Default for Wheel {
    fn default() -> Self {
        let heads = vec![NONE; DUE as usize + 1];
        Self { elapsed: 0, occupied: [0; LEVELS as usize], heads, links: Slab::default() }
    }
}

impl Wheel {
    /// Sets the timer of a slot, or moves it.
    pub(crate) fn set(&mut self, slot: u32, due: u64) {
        self.unset(slot);
        while self.links.len() <= slot as usize {
            self.links.push(UNSET);
        }
        self.push(slot, due);
    }

    /// Removes the timer of a slot, if it is set.
    pub(crate) fn unset(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let Link { next, prev, bucket, .. } = std::mem::replace(link, UNSET);
        if bucket == NONE {
            return;
        }
        if let Some(link) = self.links.get_mut(next) {
            link.prev = prev;
        }
        match self.links.get_mut(prev) {
            Some(link) => link.next = next,
            None => self.set_head(bucket, next),
        }
    }

    /// Moves the wheel on to `now` and takes out what is due, at most so many at once.
    pub(crate) fn expire(&mut self, now: u64, most: usize) -> Vec<u32> {
        let mut due = Vec::new();
        loop {
            while due.len() < most
                && let Some(slot) = self.head(DUE)
            {
                self.unset(slot);
                due.push(slot);
            }
            if due.len() >= most {
                return due;
            }
            match self.next_bucket() {
                Some((deadline, bucket)) if deadline <= now => {
                    self.elapsed = deadline;
                    let mut slot = self.head(bucket);
                    self.set_head(bucket, NONE);
                    while let Some(this) = slot {
                        let Some(link) = self.links.get_mut(this) else { break };
                        let Link { next, due, .. } = std::mem::replace(link, UNSET);
                        self.push(this, due);
                        slot = (next != NONE).then_some(next);
                    }
                }
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return due;
                }
            }
        }
    }

    /// When [`Wheel::expire`] has something to do next.
    pub(crate) fn next(&self) -> Option<u64> {
        match self.head(DUE) {
            Some(_) => Some(self.elapsed),
            None => self.next_bucket().map(|(deadline, _)| deadline),
        }
    }

    fn head(&self, bucket: u32) -> Option<u32> {
        self.heads.get(bucket as usize).copied().filter(|head| *head != NONE)
    }

    fn set_head(&mut self, bucket: u32, slot: u32) {
        if let Some(head) = self.heads.get_mut(bucket as usize) {
            *head = slot;
        }
        if let Some(bits) = self.occupied.get_mut((bucket >> BITS) as usize) {
            let bit = 1 << (u64::from(bucket) % SLOTS);
            *bits = if slot == NONE { *bits & !bit } else { *bits | bit };
        }
    }

    fn push(&mut self, slot: u32, due: u64) {
        let bucket = self.bucket(due);
        let next = self.head(bucket).unwrap_or(NONE);
        if let Some(link) = self.links.get_mut(next) {
            link.prev = slot;
        }
        if let Some(link) = self.links.get_mut(slot) {
            *link = Link { next, prev: NONE, bucket, due };
            self.set_head(bucket, slot);
        }
    }

    fn bucket(&self, due: u64) -> u32 {
        if due <= self.elapsed {
            return DUE;
        }
        let due = due.min(self.elapsed.saturating_add(SPAN));
        // The highest digit in which the two times differ; below the lowest level, that one.
        let differs = (self.elapsed ^ due) | (SLOTS - 1);
        let level = ((63 - differs.leading_zeros()) / BITS).min(LEVELS - 1);
        let digit = (due >> (level * BITS)) % SLOTS;
        (level << BITS) | u32::try_from(digit).unwrap_or(0)
    }

    /// The bucket whose time begins next, and when. The lowest level that has one has it.
    fn next_bucket(&self) -> Option<(u64, u32)> {
        let levels = (0..LEVELS).zip(self.occupied);
        let (level, bits) = levels.into_iter().find(|(_, bits)| *bits != 0)?;
        let shift = level * BITS;
        let now_digit = (self.elapsed >> shift) % SLOTS;
        let ahead = bits.rotate_right(u32::try_from(now_digit).unwrap_or(0)).trailing_zeros();
        let digit = (now_digit + u64::from(ahead)) % SLOTS;
        let turn = SLOTS << shift;
        let mut deadline = self.elapsed / turn * turn + (digit << shift);
        if deadline <= self.elapsed {
            // Only the highest level goes round.
            deadline += turn;
        }
        Some((deadline, (level << BITS) | u32::try_from(digit).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_fires_what_is_due_and_nothing_else(
            steps in prop::collection::vec(
                (0u32..40, prop_oneof![0u64..200, 0u64..10_000_000, 0u64..(3 * SPAN)], 0u8..4,
                 prop_oneof![0u64..100, 0u64..5_000_000, 0u64..(2 * SPAN)]), 1..60)
        ) {
            let (mut wheel, mut now) = (Wheel::default(), 0);
            let mut model = std::collections::BTreeMap::new();
            for (slot, after, what, wait) in steps {
                match what {
                    0 | 1 => {
                        wheel.set(slot, now + after);
                        model.insert(slot, now + after);
                    }
                    2 => {
                        wheel.unset(slot);
                        model.remove(&slot);
                    }
                    _ => now += wait,
                }
                let earliest = model.values().min().copied();
                prop_assert!(wheel.next().is_none_or(|at| earliest.is_some_and(|due| at <= due.max(wheel.elapsed))));
                prop_assert_eq!(wheel.next().is_none(), earliest.is_none());
                let mut fired = Vec::new();
                loop {
                    let some = wheel.expire(now, 3);
                    if some.is_empty() { break }
                    // What lies beyond the span may come early, and is set again.
                    for slot in some {
                        match model.get(&slot) {
                            Some(due) if *due > now => wheel.set(slot, *due),
                            _ => fired.push(slot),
                        }
                    }
                }
                let mut due: Vec<_> =
                    model.iter().filter(|(_, due)| **due <= now).map(|(slot, _)| *slot).collect();
                fired.sort_unstable();
                due.sort_unstable();
                prop_assert_eq!(&fired, &due);
                model.retain(|_, due| *due > now);
            }
        }
    }
}
