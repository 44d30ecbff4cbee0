//! A hash tree over a list, by which one digest vouches for each of its items.
//!
//! The tree is that of RFC 9162, §2.1: SHA-256, leaves and nodes hashed with different first bytes, so that no item can
//! be mistaken for a part of the tree. An item comes with its [`path`](Tree::path), some 32 bytes for each doubling of
//! the list; whoever has the root needs nothing else.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// The longest path: more items than a list can have.
pub const MAX_PATH: usize = 32;

const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

/// The tree over a list.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The hashes of the leaves, then those of each level above, up to the root.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over `items`, in their order.
    #[must_use]
    pub fn over<I: AsRef<[u8]>>(items: impl IntoIterator<Item = I>) -> Self {
        let leaves: Vec<Digest> = items.into_iter().map(|item| leaf(item.as_ref())).collect();
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            // A last one without a neighbour goes up as it is: the same tree as RFC 9162's, which splits from the top.
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                alone => alone[0],
            });
            levels.push(above.collect());
        }
        Self { levels }
    }

    /// The digest that vouches for the list, its order and its length. That of no items is the digest of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_else(|| Digest::of(b""))
    }

    /// What [`is_in`] needs beside the item at `index`, from the leaf upwards. Empty for an index beyond the list.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<Digest> {
        let is_leaf = self.levels.first().is_some_and(|leaves| index < leaves.len());
        let levels = self.levels.iter().filter(|_| is_leaf).enumerate();
        levels.filter_map(|(height, level)| level.get((index >> height) ^ 1).copied()).collect()
    }
}

/// Whether `item` stands at `index` in the list of `length` items whose tree has this root (RFC 9162, §2.1.3.2).
#[must_use]
pub fn is_in(root: &Digest, length: u32, index: u32, item: &[u8], path: &[Digest]) -> bool {
    if index >= length {
        return false;
    }
    let (mut at, mut last) = (index, length - 1);
    let mut hash = leaf(item);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node(sibling, &hash);
            // It went up alone until it had a neighbour to its left.
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at /= 2;
        last /= 2;
    }
    last == 0 && hash == *root
}

fn leaf(item: &[u8]) -> Digest {
    hash(&[LEAF, item])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    hash(&[NODE, left.as_bytes(), right.as_bytes()])
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Digest::from_bytes(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(length: usize) -> Vec<Vec<u8>> {
        (0..length).map(|number| number.to_le_bytes().to_vec()).collect()
    }

    /// The definition, split from the top (RFC 9162, §2.1.1).
    fn defined(items: &[Vec<u8>]) -> Digest {
        match items {
            [] => Digest::of(b""),
            [item] => leaf(item),
            items => {
                let half = items.len().next_power_of_two() / 2;
                node(&defined(&items[..half]), &defined(&items[half..]))
            }
        }
    }

    #[test]
    fn the_root_is_the_one_of_the_standard() {
        for length in 0..70 {
            let items = items(length);
            assert_eq!(Tree::over(&items).root(), defined(&items), "{length} items");
        }
    }

    #[test]
    fn every_item_is_in_its_place_and_no_other() {
        for length in 1..40 {
            let items = items(length);
            let tree = Tree::over(&items);
            let count = u32::try_from(length).unwrap();
            for (index, item) in (0..).zip(&items) {
                let path = tree.path(index as usize);
                for place in 0..count + 2 {
                    let found = is_in(&tree.root(), count, place, item, &path);
                    assert_eq!(found, place == index, "item {index} of {length} at {place}");
                }
                assert!(!is_in(&tree.root(), count, index, b"another", &path));
            }
            assert!(tree.path(length).is_empty());
        }
    }

    proptest! {
        /// What is not the item, its place, the length and the path is not believed.
        #[test]
        fn nothing_else_is_believed(
            length in 1..300_u32,
            at in any::<prop::sample::Index>(),
            flip in any::<(prop::sample::Index, u8)>(),
            cut in any::<bool>(),
        ) {
            let items = items(length as usize);
            let tree = Tree::over(&items);
            let index = at.index(items.len());
            let place = u32::try_from(index).unwrap();
            let mut path = tree.path(index);
            prop_assert!(is_in(&tree.root(), length, place, &items[index], &path));
            prop_assert!(path.len() <= MAX_PATH);
            // The length is a part of what the root vouches for as far as it changes the shape.
            if !path.is_empty() {
                if cut {
                    path.pop();
                } else {
                    let at = flip.0.index(path.len());
                    let mut bytes = *path[at].as_bytes();
                    bytes[usize::from(flip.1 % 32)] ^= 1;
                    path[at] = Digest::from_bytes(bytes);
                }
                prop_assert!(!is_in(&tree.root(), length, place, &items[index], &path));
            }
            path.push(Digest::of(b"more"));
            prop_assert!(!is_in(&tree.root(), length, place, &items[index], &path));
        }
    }
}
