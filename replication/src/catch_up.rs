//! When a member that was away, or is new, may be counted: after it has received everything up to a position that was read
//! once it was attached, without a gap in between (I8).
//!
//! Invariants, each a test below:
//! * `the_target_is_read_after_attaching`.
//! * `a_stream_that_broke_begins_again`.

/// One uninterrupted stream to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment<P> {
    /// Names the stream: another one after a reconnect.
    pub stream: u64,
    /// How far the member has flushed, as it said on this stream.
    pub flushed: P,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp<P> {
    /// It does not receive.
    Detached,
    /// It receives, and has to come as far as `target`.
    Behind {
        /// On this stream.
        stream: u64,
        /// The primary's position after it had attached.
        target: P,
    },
    /// It came as far. It is counted only once a rule names it.
    Ready {
        /// On this stream.
        stream: u64,
    },
}

impl<P: PartialOrd + Clone> CatchUp<P> {
    /// The next state. `primary` is the primary's own flushed position, read after `attachment` was seen.
    #[must_use]
    pub fn observe(self, attachment: Option<&Attachment<P>>, primary: &P) -> Self {
        let Some(Attachment { stream, flushed }) = attachment else { return Self::Detached };
        let stream = *stream;
        match &self {
            Self::Ready { stream: same } if *same == stream => self,
            Self::Behind { stream: same, target } if *same == stream && flushed >= target => {
                Self::Ready { stream }
            }
            Self::Behind { stream: same, .. } if *same == stream => self,
            Self::Detached | Self::Behind { .. } | Self::Ready { .. } => {
                Self::Behind { stream, target: primary.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows on `from` when a stream is seen at `flushed`, and the primary at `primary`.
    fn seen(from: CatchUp<u64>, stream: u64, flushed: u64, primary: u64) -> CatchUp<u64> {
        from.observe(Some(&Attachment { stream, flushed }), &primary)
    }

    #[test]
    fn the_target_is_read_after_attaching() {
        let first = seen(CatchUp::Detached, 1, 100, 100);
        assert_eq!(first, CatchUp::Behind { stream: 1, target: 100 }, "what was read before does not count");
        assert_eq!(seen(first, 1, 99, 200), first);
        assert_eq!(seen(first, 1, 100, 200), CatchUp::Ready { stream: 1 });
    }

    #[test]
    fn a_stream_that_broke_begins_again() {
        let ready = CatchUp::Ready { stream: 1 };
        assert_eq!(seen(ready, 1, 100, 300), ready);
        assert_eq!(seen(ready, 2, 300, 300), CatchUp::Behind { stream: 2, target: 300 });
        assert_eq!(ready.observe(None, &300), CatchUp::Detached);
    }
}
