//! Mistakes that producers have made or might make, planted on purpose: the simulator has to find
//! each of them. Outside tests none of this is compiled in.

/// A mistake. Where it is made the code asks [`is_planted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(all(test, not(loom))), allow(dead_code, reason = "nothing is planted"))]
pub(crate) enum Defect {
    /// A batch's memory goes back to the pool as it expires, though it is still being written
    /// (KAFKA-19012).
    FreedInFlight,
    /// A batch to be tried again queues behind later sequences.
    RetryBehindLater,
    /// A batch that has failed is acknowledged later on.
    FailedAndAcknowledged,
    /// With one request in flight, a later batch goes out while an earlier one waits to be tried
    /// again.
    UnmutedRetry,
    /// A thread that has news does not wake the sender.
    LostWakeUp,
    /// What is queued when a close's time is up is dropped without a word.
    DroppedAtClose,
    /// A close with less time does not shorten another one.
    LaterCloseIgnored,
    /// The parts of a batch that was split have the same sequence.
    SplitSharesSequence,
    /// A new epoch begins while requests of the old one are under way.
    BumpInFlight,
    /// A thread that has waited for memory in vain keeps its place, and what comes there.
    PoolTimeoutStays,
    /// What comes back is given to whoever waits for memory, and not to who waits for its share.
    ShareNotServed,
    /// A response is taken for that to another request.
    ResponseOfAnother,
    /// Metadata that is older than what is known is believed.
    OldMetadata,
    /// Backoffs do not count against the delivery time-out.
    DeadlineSkipsBackoff,
    /// A broker that asks for a pause is not given one.
    ThrottleIgnored,
    /// A request that is not answered is waited for beyond its time-out.
    TimeoutIgnored,
    /// Bytes of a connection that ended are read as the next one's.
    BytesLeftOver,
    /// Two threads run callbacks of one partition.
    TwoInOneLane,
    /// The last batch of several that were drained is forgotten.
    LastOfDrain,
    /// A batch that may be in the log gets a new sequence, and that while requests are under way.
    WrittenRenumbered,
    /// The sequence of a batch that expires while it is under way alone is given again.
    ExpiredUnaccounted,
}

/// Whether this mistake is to be made, on this thread's simulated world.
#[cfg(all(test, not(loom)))]
pub(crate) fn is_planted(defect: Defect) -> bool {
    crate::sim::is_planted(defect)
}

/// Nothing is planted outside tests.
#[cfg(not(all(test, not(loom))))]
#[inline(always)]
pub(crate) const fn is_planted(_: Defect) -> bool {
    false
}

#[cfg(all(test, not(loom)))]
impl Defect {
    pub(crate) const ALL: [Self; 21] = [
        Self::FreedInFlight,
        Self::RetryBehindLater,
        Self::FailedAndAcknowledged,
        Self::UnmutedRetry,
        Self::LostWakeUp,
        Self::DroppedAtClose,
        Self::LaterCloseIgnored,
        Self::SplitSharesSequence,
        Self::BumpInFlight,
        Self::PoolTimeoutStays,
        Self::ShareNotServed,
        Self::ResponseOfAnother,
        Self::OldMetadata,
        Self::DeadlineSkipsBackoff,
        Self::ThrottleIgnored,
        Self::TimeoutIgnored,
        Self::BytesLeftOver,
        Self::TwoInOneLane,
        Self::LastOfDrain,
        Self::WrittenRenumbered,
        Self::ExpiredUnaccounted,
    ];
}
