//! A vector in blocks: growing it moves nothing, and leaves at most one block unused.

/// Items of a block, as a power of two: of slots, about 50 KB.
const BITS: u32 = 8;
const BLOCK: usize = 1 << BITS;

pub(crate) struct Slab<T>(Vec<Vec<T>>);

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        let last = self.0.last().map_or(0, Vec::len);
        self.0.len().saturating_sub(1) * BLOCK + last
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.0.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(item),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(item);
                self.0.push(block);
            }
        }
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.0.get((at >> BITS) as usize)?.get(at as usize % BLOCK)
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.0.get_mut((at >> BITS) as usize)?.get_mut(at as usize % BLOCK)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }
}
