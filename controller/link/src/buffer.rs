//! Memory for large messages, used again and again.
//!
//! Each piece of bulky output is in memory from its arrival to its commit. Taking that memory from the system and giving
//! it back costs more than filling it. What lies here unused is bounded, for all connections together.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// Buffers that wait to be used again, at most: what may wait for its commit, in pieces of output.
const WAITING: usize = 32;

/// Where large messages get their memory. All clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    waiting: Option<Arc<Mutex<Vec<Vec<u8>>>>>,
}

/// A buffer that comes back when the last reader is done.
struct Lent {
    bytes: Vec<u8>,
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// Buffers that are kept for later.
    pub(super) fn kept() -> Self {
        Self { waiting: Some(Arc::default()) }
    }

    /// Nothing is kept.
    pub(super) const fn none() -> Self {
        Self { waiting: None }
    }

    /// An empty buffer.
    pub(super) fn take(&self) -> Vec<u8> {
        let Some(waiting) = &self.waiting else { return Vec::new() };
        waiting.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives a filled buffer out to be read. It comes back by itself.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        match &self.waiting {
            Some(waiting) => Bytes::from_owner(Lent { bytes, home: Arc::downgrade(waiting) }),
            None => bytes.into(),
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut waiting = home.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            waiting.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Buffers, with: u8) -> Bytes {
        let mut bytes = buffers.take();
        assert!(bytes.is_empty());
        bytes.extend_from_slice(&[with; 1000]);
        buffers.lend(bytes)
    }

    #[test]
    fn a_buffer_is_used_again_when_nobody_reads_it_any_more() {
        let buffers = Buffers::kept();
        let first = filled(&buffers, 1);
        let place = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_ne!(filled(&buffers, 2).as_ptr(), place, "a part is still read");
        assert_eq!(part, [1; 10].as_slice());
        drop(part);
        assert_eq!(filled(&buffers, 3).as_ptr(), place);
    }

    #[test]
    fn no_more_is_kept_than_agreed_and_nothing_without_a_home() {
        let buffers = Buffers::kept();
        drop((0..2 * WAITING).map(|_| filled(&buffers, 0)).collect::<Vec<_>>());
        let kept = buffers.waiting.as_ref().unwrap();
        assert_eq!(kept.lock().unwrap().len(), WAITING);
        let orphan = filled(&buffers, 4);
        drop(buffers);
        assert_eq!(orphan, [4; 1000].as_slice());
        let none = Buffers::none();
        drop(filled(&none, 5));
        assert_eq!(none.take().capacity(), 0);
    }
}
