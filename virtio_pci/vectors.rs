// SPDX-License-Identifier: GPL-2.0

//! Which MSI-X vector serves which queue (Virtio 1.4, 4.1.5.1.2).
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// No vector at all (`VIRTIO_MSI_NO_VECTOR`); also what a device answers that has too few.
pub(crate) const NONE: u16 = 0xffff;

/// The vector of configuration changes.
pub(crate) const CONFIG: u16 = 0;

/// The vector of all queues that have none of their own.
pub(crate) const SHARED: u16 = 1;

/// How vectors are shared out, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// One vector for configuration changes, and one for each queue.
    Each,
    /// As before, but queues that need not be fast share the one of configuration changes.
    SlowShared,
    /// One for configuration changes, one for all queues.
    AllShared,
}

impl Policy {
    /// All of them, in the order in which they are tried.
    pub(crate) const ALL: [Self; 3] = [Self::Each, Self::SlowShared, Self::AllShared];

    /// Tells whether queues have vectors of their own.
    pub(crate) const fn has_own(self) -> bool {
        !matches!(self, Self::AllShared)
    }
}

/// A queue, as far as interrupts are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    /// Somebody wants to hear of used buffers.
    pub(crate) callback: bool,
    /// The queue need not be fast.
    pub(crate) slow: bool,
}

/// Shares vectors out.
pub(crate) struct Sharing {
    policy: Policy,
    /// The next one that no queue has.
    next: u32,
}

impl Sharing {
    /// None was given to a queue yet.
    pub(crate) const fn new(policy: Policy) -> Self {
        Self {
            policy,
            next: CONFIG as u32 + 1,
        }
    }

    /// How many vectors it takes for queues with these needs.
    pub(crate) fn count(policy: Policy, needs: impl Iterator<Item = Need>) -> u32 {
        if !policy.has_own() {
            return 2;
        }
        let mut sharing = Self::new(policy);

        for need in needs {
            sharing.vector(need);
        }
        sharing.next
    }

    /// The vector of the next queue.
    pub(crate) fn vector(&mut self, need: Need) -> u16 {
        match self.policy {
            _ if !need.callback => NONE,
            Policy::AllShared | Policy::SlowShared if need.slow => CONFIG,
            Policy::AllShared => SHARED,
            Policy::Each | Policy::SlowShared => {
                let vector = self.next;

                self.next += 1;
                u16::try_from(vector).unwrap_or(NONE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Need = Need {
        callback: true,
        slow: false,
    };
    const SLOW: Need = Need {
        callback: true,
        slow: true,
    };
    const MUTE: Need = Need {
        callback: false,
        slow: false,
    };

    fn share(policy: Policy, needs: &[Need]) -> (u32, Vec<u16>) {
        let mut sharing = Sharing::new(policy);
        let vectors = needs.iter().map(|need| sharing.vector(*need)).collect();

        (Sharing::count(policy, needs.iter().copied()), vectors)
    }

    #[test]
    fn each_queue_that_is_heard_has_its_own() {
        assert_eq!(
            share(Policy::Each, &[FAST, MUTE, FAST, SLOW]),
            (4, vec![1, NONE, 2, 3])
        );
    }

    #[test]
    fn slow_queues_share_with_configuration_changes() {
        assert_eq!(
            share(Policy::SlowShared, &[FAST, MUTE, FAST, SLOW]),
            (3, vec![1, NONE, 2, CONFIG])
        );
    }

    #[test]
    fn all_queues_share_one() {
        assert_eq!(
            share(Policy::AllShared, &[FAST, MUTE, FAST, SLOW]),
            (2, vec![SHARED, NONE, SHARED, CONFIG])
        );
    }

    #[test]
    fn configuration_changes_need_one_even_without_queues() {
        assert_eq!(share(Policy::Each, &[]), (1, vec![]));
        assert_eq!(share(Policy::Each, &[MUTE]), (1, vec![NONE]));
    }
}
