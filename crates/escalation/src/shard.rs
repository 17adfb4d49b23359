//! A part of the holds behind one lock: a slab with generations, found by id, by order and by
//! time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::task::Waker;

use countersign_core::id::ApprovalRequestId;

use crate::held::Held;
use crate::index::Index;
use crate::machine::State;
use crate::queue::RecordError;
use crate::slab::Slab;
use crate::wheel::Wheel;

/// Where a hold is kept. The generation tells it from others that had the slot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) shard: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Ordered by creation, then by id. The head is the first bytes of the id, so that the id
/// itself is rarely looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    created_at_millis: u64,
    head: u64,
    id: ApprovalRequestId,
}

impl Place {
    pub(crate) fn new(created_at_millis: u64, id: &ApprovalRequestId) -> Self {
        let mut head = [0; 8];
        head.iter_mut().zip(id.as_str().bytes()).for_each(|(to, from)| *to = from);
        Self { created_at_millis, head: u64::from_be_bytes(head), id: id.clone() }
    }

    pub(crate) fn of(held: &Held) -> Self {
        Self::new(held.created_at_millis(), held.id())
    }
}

/// What a hold is found and counted by.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    pub(crate) id: u64,
    pub(crate) agent: u64,
    /// Who asks for what; 0 without a fingerprint.
    pub(crate) call: u64,
}

/// A hold and those who wait for it.
pub(crate) struct Live {
    pub(crate) state: State,
    pub(crate) hashes: Hashes,
    /// Wall time and monotonic time of one and the same moment, in milliseconds. The wall time
    /// is never before the hold was made.
    pub(crate) wall_anchor: u64,
    pub(crate) anchor: u64,
    pub(crate) failure: Option<Box<RecordError>>,
    wakers: Wakers,
    next_token: u32,
    /// Whoever would be told a new state; the slot stays until they have gone.
    pub(crate) pins: u32,
    /// Of those, who waits for the call to be released.
    pub(crate) waiters: u32,
    /// Whether it goes on when nobody waits.
    pub(crate) kept: bool,
    /// Whether it is to go with the last pin.
    pub(crate) evicted: bool,
}

impl Live {
    pub(crate) fn new(
        state: State,
        hashes: Hashes,
        (wall_anchor, anchor): (u64, u64),
        kept: bool,
    ) -> Self {
        Self {
            state,
            hashes,
            wall_anchor,
            anchor,
            failure: None,
            wakers: Wakers::None,
            next_token: 0,
            pins: 0,
            waiters: 0,
            kept,
            evicted: false,
        }
    }

    /// A token under which a waker can be left.
    pub(crate) fn pin(&mut self) -> u32 {
        self.pins += 1;
        self.next_token = self.next_token.wrapping_add(1);
        self.next_token
    }

    pub(crate) fn wake_with(&mut self, token: u32, waker: &Waker) {
        self.wakers.set(token, waker);
    }

    pub(crate) fn take_wakers(&mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }

    /// The time as this hold counts it: a wall clock that was set back does not give it more,
    /// one that was set forward takes it away.
    pub(crate) fn now(&self, wall: u64, monotonic: u64) -> u64 {
        let elapsed = monotonic.saturating_sub(self.anchor);
        wall.max(self.wall_anchor.saturating_add(elapsed))
    }

    /// When the timer is to look at it again, on the monotonic clock.
    pub(crate) fn due(&self, wall: u64, monotonic: u64) -> u64 {
        let left = self.state.held().due_millis().saturating_sub(self.now(wall, monotonic));
        monotonic.saturating_add(left)
    }
}

/// Who is to be woken, by token. Mostly one.
#[derive(Default)]
pub(crate) enum Wakers {
    #[default]
    None,
    One(u32, Waker),
    Many(Vec<(u32, Waker)>),
}

impl Wakers {
    fn set(&mut self, token: u32, waker: &Waker) {
        match self {
            Self::None => *self = Self::One(token, waker.clone()),
            Self::One(other, old) if *other == token => old.clone_from(waker),
            Self::One(..) => {
                let Self::One(other, old) = std::mem::take(self) else { return };
                *self = Self::Many(vec![(other, old), (token, waker.clone())]);
            }
            Self::Many(all) => match all.iter_mut().find(|(other, _)| *other == token) {
                Some((_, old)) => old.clone_from(waker),
                None => all.push((token, waker.clone())),
            },
        }
    }

    fn remove(&mut self, token: u32) {
        match self {
            Self::One(other, _) if *other == token => *self = Self::None,
            Self::Many(all) => all.retain(|(other, _)| *other != token),
            Self::None | Self::One(..) => {}
        }
    }

    pub(crate) fn wake(self) {
        match self {
            Self::None => {}
            Self::One(_, waker) => waker.wake(),
            Self::Many(all) => all.into_iter().for_each(|(_, waker)| waker.wake()),
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    live: Option<Live>,
}

/// A part of the holds.
#[derive(Default)]
pub(crate) struct Shard {
    slots: Slab<Slot>,
    free: Vec<u32>,
    by_id: Index,
    pending: BTreeMap<Place, u32>,
    pub(crate) wheel: Wheel,
}

impl Shard {
    /// Puts a hold into a slot where it can be reached by key only.
    pub(crate) fn put(&mut self, live: Live) -> (u32, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self.slots.get_mut(slot).map_or(0, |entry| {
            entry.live = Some(live);
            entry.generation
        });
        (slot, generation)
    }

    /// Has the hold in this slot found by its id and listed.
    pub(crate) fn list(&mut self, slot: u32, hash: u64, held: &Held) {
        self.by_id.insert(hash, slot);
        self.pending.insert(Place::of(held), slot);
    }

    pub(crate) fn unlist(&mut self, held: &Held) {
        self.pending.remove(&Place::of(held));
    }

    /// Where the hold with this id is: its slot and generation.
    pub(crate) fn find(&self, hash: u64, id: &ApprovalRequestId) -> Option<(u32, u32)> {
        self.by_id.find(hash).find_map(|slot| {
            let entry = self.slots.get(slot)?;
            let found = entry.live.as_ref()?.state.held().id();
            (found == id).then_some((slot, entry.generation))
        })
    }

    pub(crate) fn live(&mut self, key: Key) -> Option<&mut Live> {
        let slot = self.slots.get_mut(key.slot)?;
        slot.live.as_mut().filter(|_| slot.generation == key.generation)
    }

    /// The hold that has the slot now, with its generation.
    pub(crate) fn in_slot(&mut self, slot: u32) -> Option<(u32, &mut Live)> {
        let slot = self.slots.get_mut(slot)?;
        Some((slot.generation, slot.live.as_mut()?))
    }

    /// Forgets the hold, unless somebody still looks at it: then it goes with them.
    pub(crate) fn evict(&mut self, key: Key) -> Option<Live> {
        let live = self.live(key)?;
        live.evicted = true;
        match live.pins {
            0 => self.remove(key),
            _ => None,
        }
    }

    fn remove(&mut self, key: Key) -> Option<Live> {
        self.wheel.unset(key.slot);
        let slot = self.slots.get_mut(key.slot)?;
        let live = slot.live.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.by_id.remove(live.hashes.id, key.slot);
        Some(live)
    }

    /// Takes a pin back, and the waker left under its token. The hold comes along when it was
    /// waiting for that.
    pub(crate) fn unpin(&mut self, key: Key, token: u32) -> Option<Live> {
        let live = self.live(key)?;
        live.wakers.remove(token);
        live.pins = live.pins.saturating_sub(1);
        match live.evicted && live.pins == 0 {
            true => self.remove(key),
            false => None,
        }
    }

    /// Pending holds after this place, in order, at most so many.
    pub(crate) fn page(&mut self, after: Option<&Place>, limit: usize) -> Vec<(Place, Held)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let listed = self.pending.range((from, Bound::Unbounded)).take(limit);
        let held = |(place, slot): (&Place, &u32)| {
            let live = self.slots.get(*slot)?.live.as_ref()?;
            Some((place.clone(), live.state.held().clone()))
        };
        listed.filter_map(held).collect()
    }

    /// The slots of all pending holds.
    pub(crate) fn pending_slots(&self) -> Vec<u32> {
        self.pending.values().copied().collect()
    }

    /// All whom anybody waits in this shard for.
    pub(crate) fn all_wakers(&mut self) -> Vec<Wakers> {
        self.slots.iter_mut().filter_map(|slot| Some(slot.live.as_mut()?.take_wakers())).collect()
    }
}
