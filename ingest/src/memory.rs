//! How many bytes of requests the process holds at once, and each project in it. What is beyond is
//! refused, so that nothing from outside can exhaust its memory, and no project the others' share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::ProjectId;

/// Bodies and what is made of them: eight of the largest requests, or 64 of the largest
/// callbacks.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;
/// A project's share of them is one in so many: two of the largest requests, or 16 of the largest
/// callbacks. With less, one sender with a few connections would wait for itself; with more, two
/// projects could keep everybody out.
const PROJECTS_SHARE: usize = 4;
/// Rendered messages on their way to the server. Each is made when its turn comes, and waits for
/// room here.
pub(crate) const MESSAGES_BYTES_MAX: usize = 64 << 20;

/// Bytes that may still be taken.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    project_bytes_max: usize,
    /// A lock and not atomics, as two numbers have to agree; it is held for a lookup.
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    bytes_left: usize,
    /// Of projects that hold any.
    by_project: HashMap<ProjectId, usize>,
}

/// Bytes taken for a project, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    project: ProjectId,
    bytes: usize,
}

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// Of all projects.
    Everybody,
    Project,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let held = Held {
            bytes_left: bytes,
            by_project: HashMap::new(),
        };
        Self {
            project_bytes_max: bytes / PROJECTS_SHARE,
            held: Arc::new(Mutex::new(held)),
        }
    }

    /// Of nothing yet.
    pub(crate) fn reservation(&self, project: ProjectId) -> Reservation {
        Reservation {
            budget: self.clone(),
            project,
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics under it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Takes `bytes` more, or nothing.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let mut held = self.budget.lock();
        let before = held.by_project.get(&self.project).copied().unwrap_or(0);
        let projects = before.saturating_add(bytes);
        if projects > self.budget.project_bytes_max {
            return Err(Exhausted::Project);
        }
        held.bytes_left = held
            .bytes_left
            .checked_sub(bytes)
            .ok_or(Exhausted::Everybody)?;
        if projects > 0 {
            held.by_project.insert(self.project, projects);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.budget.lock();
        held.bytes_left += self.bytes;
        let Some(projects) = held.by_project.get_mut(&self.project) else {
            return;
        };
        *projects = projects.saturating_sub(self.bytes);
        if *projects == 0 {
            held.by_project.remove(&self.project);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ProjectId = ProjectId::from_bytes([1; 16]);

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = Budget::new(40);
        let mut first = budget.reservation(OURS);
        let mut second = budget.reservation(OURS);
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(second.grow(5), Err(Exhausted::Project));
        assert_eq!(second.grow(4), Ok(()));
        drop(first);
        assert_eq!(second.grow(6), Ok(()));
        drop(second);
        assert_eq!(budget.reservation(OURS).grow(10), Ok(()));
        assert!(budget.lock().by_project.is_empty());
        assert_eq!(budget.lock().bytes_left, 40);
    }

    #[test]
    fn no_project_takes_more_than_a_quarter() {
        let budget = Budget::new(40);
        let mut taken = Vec::new();
        for project in 1..=4 {
            let project = ProjectId::from_bytes([project; 16]);
            let mut reservation = budget.reservation(project);
            assert_eq!(reservation.grow(10), Ok(()), "{project}");
            assert_eq!(reservation.grow(1), Err(Exhausted::Project), "{project}");
            taken.push(reservation);
        }
        let fifth = ProjectId::from_bytes([5; 16]);
        assert_eq!(budget.reservation(fifth).grow(1), Err(Exhausted::Everybody));
        taken.pop();
        assert_eq!(budget.reservation(fifth).grow(10), Ok(()));
    }
}
