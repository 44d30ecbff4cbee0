//! How much work one expression may cost.
//!
//! Whoever may read may write an expression, so its cost is counted, not timed: the same expression over the same
//! hosts ends in the same way on every machine.

/// The steps that one selection may take: hosts looked at, characters compared, places of patterns tried. A few
/// hundred patterns over ten thousand hosts stay below; the time for all of them is well under a second.
pub(super) const MAX_STEPS: u64 = 50_000_000;

/// What is left of the steps.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

/// There are no steps left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooCostly;

impl Budget {
    pub(super) const fn of(steps: u64) -> Self {
        Self { left: steps }
    }

    /// Takes as many steps, before they are made.
    pub(super) const fn take(&mut self, steps: usize) -> Result<(), TooCostly> {
        // A platform's `usize` fits.
        match self.left.checked_sub(steps as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(TooCostly)
            }
        }
    }

    #[cfg(test)]
    pub(super) const fn left(&self) -> u64 {
        self.left
    }
}
