//! What a world is made of: drawn from its seed.

use dispatcher::core::lanes::Bounds;
use shared::domain::policy::Policy;

use crate::world::Chance;

/// A fault that is built in, and that the checker must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    NoFence,
    LaneCheckOff,
    FoldStoppedBeforeEpoch,
    PositionFromApi,
    OfferRangesUnchecked,
    NotFoundTakenForExpired,
    ProbesCountedAsAttempts,
    SnapshotWithUncommitted,
    PackSentAhead,
    /// Not in the protocol's list: a lease that nobody looks at before a POST.
    NoLease,
    /// Neither is this one: nobody looks at what EVENTS is about to drop.
    NothingExpires,
    /// A replay that takes what is pending for ended.
    ReplayOfPending,
    /// A replay of which a new owner remembers nothing that was tried.
    ReplayFromTheStart,
}

/// Chances are in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) plant: Option<Plant>,
    pub(crate) span_ms: i64,
    pub(crate) processes: usize,
    pub(crate) webhooks: usize,
    pub(crate) commands: usize,
    pub(crate) events: usize,
    pub(crate) faults: usize,
    pub(crate) replays: usize,
    pub(crate) lanes: u64,
    pub(crate) bounds: Bounds,
    /// Of a webhook's mailbox.
    pub(crate) mailbox: usize,
    /// Events of one read.
    pub(crate) read_events: usize,
    pub(crate) busy: u64,
    pub(crate) ack_lost: u64,
    /// An append does not arrive at once.
    pub(crate) append_lost: u64,
    pub(crate) append_late: u64,
    pub(crate) read_fails: u64,
    pub(crate) read_falls_short: u64,
    pub(crate) tail_fails: u64,
    pub(crate) projection_late: u64,
    pub(crate) fetch_lags: u64,
    pub(crate) failing: u64,
    pub(crate) snapshots: u64,
    /// Bytes kept of a failed attempt's answer: large ones split packs.
    pub(crate) answer_bytes: usize,
    /// Whether a server looks at the expected sequence before it looks for duplicates.
    pub(crate) refuses_before_duplicates: bool,
    /// Which orderings webhooks of this world may have.
    pub(crate) orderings: u64,
    /// How long EVENTS keeps an event, if it drops any.
    pub(crate) age_max_ms: Option<i64>,
    /// What is told of one by one instead of drawn.
    pub(crate) scene: Option<Scene>,
}

/// A world without faults of its own, in which this happens.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) policy: Policy,
    /// The endpoint is not there until then.
    pub(crate) down_ms: i64,
    /// Nobody is there from the first until the second.
    pub(crate) stall_ms: Option<(i64, i64)>,
    /// When events are published.
    pub(crate) published_ms: Vec<i64>,
}

const MINUTE: i64 = 60 * 1_000;
pub(crate) const DAY: i64 = 24 * 60 * MINUTE;

impl Settings {
    pub(crate) fn draw(chance: &mut Chance, plant: Option<Plant>) -> Self {
        let mut rate = |likely: u64, most: u64| {
            if chance.per_mille(likely) {
                chance.below(most)
            } else {
                0
            }
        };
        let (busy, ack_lost) = (rate(400, 200), rate(500, 300));
        let (append_lost, append_late) = (rate(400, 150), rate(400, 100));
        let (read_fails, read_falls_short) = (rate(400, 200), rate(400, 300));
        let (tail_fails, projection_late) = (rate(500, 400), rate(500, 500));
        let (fetch_lags, snapshots) = (rate(500, 300), rate(700, 300));
        let failing = rate(800, 700);
        let spans = [MINUTE, 10 * MINUTE, 60 * MINUTE, 12 * 60 * MINUTE];
        let small =
            |chance: &mut Chance, most: u64| usize::try_from(1 + chance.below(most)).unwrap();
        Self {
            plant,
            span_ms: *chance.pick(&spans),
            processes: small(chance, 3),
            webhooks: small(chance, 3),
            commands: small(chance, 8) - 1,
            events: small(chance, 48),
            faults: small(chance, 7) - 1,
            replays: small(chance, 7) - 1,
            lanes: 1 + chance.below(8),
            bounds: Bounds {
                window: 2 + small(chance, 8),
                narrow_window: small(chance, 4),
                lane: 1 + small(chance, 6),
                parked_lane: small(chance, 3) - 1,
                parked_lanes: 1 + small(chance, 6),
                settle_after: small(chance, 6),
            },
            mailbox: small(chance, 8),
            read_events: small(chance, 12),
            busy,
            ack_lost,
            append_lost,
            append_late,
            read_fails,
            read_falls_short,
            tail_fails,
            projection_late,
            fetch_lags,
            failing,
            snapshots,
            answer_bytes: if chance.per_mille(40) { 100 << 10 } else { 4 },
            refuses_before_duplicates: chance.per_mille(500),
            orderings: 1 + chance.below(3),
            age_max_ms: None,
            scene: None,
        }
        .aging(chance)
    }

    /// In some worlds EVENTS drops what is old, so fast that this matters.
    fn aging(mut self, chance: &mut Chance) -> Self {
        if chance.per_mille(300) {
            let parts = *chance.pick(&[2, 5, 12]);
            self.age_max_ms = Some((self.span_ms / parts).max(MINUTE / 3));
        }
        self
    }

    /// No chance of a fault, one replica, one webhook; EVENTS keeps what it is told for 7 days.
    pub(crate) fn calm(chance: &mut Chance, span_ms: i64, scene: Scene) -> Self {
        Self {
            span_ms,
            processes: 1,
            webhooks: 1,
            commands: 0,
            events: 0,
            faults: 0,
            busy: 0,
            ack_lost: 0,
            append_lost: 0,
            append_late: 0,
            read_fails: 0,
            read_falls_short: 0,
            tail_fails: 0,
            projection_late: 0,
            fetch_lags: 0,
            failing: 0,
            answer_bytes: 4,
            age_max_ms: Some(7 * DAY),
            scene: Some(scene),
            ..Self::draw(chance, None)
        }
    }

    pub(crate) fn plants(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }
}
