//! The Merkle tree of RFC 6962: leaf hash `SHA-256(0x00 ‖ record)`, node hash
//! `SHA-256(0x01 ‖ left ‖ right)`. Leaves count from 0.

use sha2::{Digest as _, Sha256};

/// A leaf, node or root hash.
pub type Hash = [u8; 32];

/// The leaf hash of a record's stored bytes.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(record).finalize().into()
}

/// The hash of two neighbouring subtrees.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The place of a complete subtree: `level` 0 is the leaves, `index` counts from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The height: the subtree has `2^level` leaves.
    pub level: u8,
    /// How many subtrees of this height stand to its left.
    pub index: u64,
}

/// The complete subtrees that make up a tree, the widest first: all that is needed to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes up a tree of `size` leaves, asking for the hashes of its complete subtrees.
    ///
    /// # Errors
    /// Whatever `node` returns for a place it does not have.
    pub fn load<E>(size: u64, mut node: impl FnMut(Place) -> Result<Hash, E>) -> Result<Self, E> {
        let peaks = peaks(size).map(&mut node).collect::<Result<_, E>>()?;
        Ok(Self { size, peaks })
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf, and reports every complete subtree that this closes, the leaf first.
    pub fn push(&mut self, leaf: Hash, mut closed: impl FnMut(Place, Hash)) {
        let mut place = Place { level: 0, index: self.size };
        let mut hash = leaf;
        closed(place, hash);
        while place.index & 1 == 1 {
            // INVARIANT: an odd index has its left neighbour among the peaks.
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            place = Place { level: place.level + 1, index: place.index >> 1 };
            closed(place, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// The complete subtrees with their places, the widest first.
    pub fn peaks(&self) -> impl Iterator<Item = (Place, Hash)> + '_ {
        peaks(self.size).zip(self.peaks.iter().copied())
    }
}

/// The places of the complete subtrees of a tree of `size` leaves, the widest first.
fn peaks(size: u64) -> impl Iterator<Item = Place> {
    (0..64u8).rev().filter(move |level| size >> level & 1 == 1).map(move |level| {
        // Everything wider than this peak lies to its left.
        let wider = (size >> level) & !1;
        Place { level, index: wider }
    })
}

/// The hashes that lead from leaf `index` to the root over the first `size` leaves, the
/// nearest first (RFC 6962 §2.1.1). `None` when the leaf is not among them.
///
/// # Errors
/// Whatever `node` returns for a place it does not have; only complete subtrees are asked for.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut node: impl FnMut(Place) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if index >= size {
        return Ok(None);
    }
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range_root(middle, to, &mut node)?);
            to = middle;
        } else {
            path.push(range_root(from, middle, &mut node)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether the path leads from this leaf to this root.
#[must_use]
pub fn verify_inclusion(index: u64, size: u64, leaf: Hash, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    // RFC 9162 §2.1.3.2.
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The hashes that show that the tree over the first `old` leaves is the beginning of the one over
/// the first `new` (RFC 6962 §2.1.2). `None` when `old` is the larger; nothing is needed for an
/// empty tree or an equal one.
///
/// # Errors
/// Whatever `node` returns for a place it does not have; only complete subtrees are asked for.
pub fn consistency_proof<E>(
    old: u64,
    new: u64,
    mut node: impl FnMut(Place) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if old > new {
        return Ok(None);
    }
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(Some(path));
    }
    let (mut from, mut to) = (0, new);
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range_root(middle, to, &mut node)?);
            to = middle;
        } else {
            path.push(range_root(from, middle, &mut node)?);
            from = middle;
        }
    }
    // A subtree that is the whole old tree is known by its root.
    if from > 0 {
        path.push(range_root(from, to, &mut node)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether the path shows that the tree with `old_root` is the beginning of the one with
/// `new_root`.
#[must_use]
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    path: &[Hash],
) -> bool {
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return path.is_empty() && *old_root == empty_root();
    }
    if old > new {
        return false;
    }
    // RFC 9162 §2.1.4.2.
    let mut steps = path.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(step, &old_hash);
            new_hash = node_hash(step, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// The root over the first `size` leaves, from complete subtrees.
///
/// # Errors
/// Whatever `node` returns for a place it does not have.
pub fn root<E>(size: u64, mut node: impl FnMut(Place) -> Result<Hash, E>) -> Result<Hash, E> {
    if size == 0 { Ok(empty_root()) } else { range_root(0, size, &mut node) }
}

/// The largest power of two below `n`, for `n` ≥ 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The root over the leaves `from..to`, where `from` is a multiple of the range's split.
fn range_root<E>(
    from: u64,
    to: u64,
    node: &mut impl FnMut(Place) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let n = to - from;
    if n.is_power_of_two() {
        let level = n.trailing_zeros() as u8;
        return node(Place { level, index: from >> level });
    }
    let middle = from + split(n);
    Ok(node_hash(&range_root(from, middle, node)?, &range_root(middle, to, node)?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    /// The definition in RFC 6962 §2.1, word for word: slow, and the oracle for the rest.
    fn defined_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&defined_root(left), &defined_root(right))
            }
        }
    }

    #[test]
    fn roots_and_proofs_agree_with_the_definition_for_every_small_tree() {
        let leaves: Vec<Hash> = (0..70u8).map(|i| leaf_hash(&[i])).collect();
        let mut nodes = HashMap::new();
        let mut frontier = Frontier::default();
        for size in 0..=leaves.len() {
            assert_eq!(frontier.root(), defined_root(&leaves[..size]), "size {size}");
            let node = |place: Place| Ok::<_, Infallible>(nodes[&place]);
            assert_eq!(Frontier::load(size as u64, node).unwrap(), frontier);
            let size = size as u64;
            for index in 0..size {
                let path = inclusion_proof(index, size, node).unwrap().unwrap();
                let (leaf, root) = (leaves[index as usize], frontier.root());
                assert!(verify_inclusion(index, size, leaf, &path, &root));
                assert!(!verify_inclusion(index ^ 1, size, leaf, &path, &root) || size == 1);
                assert!(!verify_inclusion(index, size, leaf_hash(b"other"), &path, &root));
                if !path.is_empty() {
                    assert!(!verify_inclusion(index, size, leaf, &path[1..], &root));
                }
                let longer = [path.as_slice(), &[root]].concat();
                assert!(!verify_inclusion(index, size, leaf, &longer, &root));
            }
            assert_eq!(inclusion_proof(size, size, node).unwrap(), None);
            if let Some(leaf) = leaves.get(size as usize) {
                frontier.push(*leaf, |place, hash| assert!(nodes.insert(place, hash).is_none()));
            }
        }
    }

    #[test]
    fn known_values_of_rfc_6962() {
        let hex = |h: Hash| h.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex(leaf_hash(b"")),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }
}
