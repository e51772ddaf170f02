//! What a client gets to resume its session by, and for how long it is good.
//!
//! rustls seals tickets and changes the keys, but only when one is made or opened: on a listener where nothing happens the
//! keys of weeks ago are still the current ones. So the time of issue stands in the ticket, in front of the session.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets, time_provider::TimeProvider};

/// How long a ticket is good, which clients are told (RFC 8446 §4.6.1 allows seven days). rustls opens none that is sealed with older
/// keys, where keys change on time.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Tickets that say when they were issued, sealed with keys that are this one's alone.
pub(crate) struct DatedTickets {
    keys: Arc<dyn ProducesTickets>,
    clock: Arc<dyn TimeProvider>,
}

impl DatedTickets {
    /// With new keys, made at random.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub(crate) fn new(clock: Arc<dyn TimeProvider>) -> Result<Self, rustls::Error> {
        Ok(Self { keys: Ticketer::new()?, clock })
    }

    /// Seconds since 1970.
    fn now(&self) -> Option<u64> {
        self.clock.current_time().map(|now| now.as_secs())
    }
}

impl ProducesTickets for DatedTickets {
    fn enabled(&self) -> bool {
        self.keys.enabled()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.encrypt(&[&self.now()?.to_be_bytes(), session].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut dated = self.keys.decrypt(ticket)?;
        let issued = u64::from_be_bytes(*dated.first_chunk()?);
        // One of the future is of a clock that was wrong: nobody knows how old it is.
        let age = Duration::from_secs(self.now()?.checked_sub(issued)?);
        (age <= LIFETIME).then(|| dated.split_off(size_of::<u64>()))
    }
}

impl fmt::Debug for DatedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatedTickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustls::pki_types::UnixTime;

    use super::*;

    /// A clock that stands still until it is moved: seconds since 1970.
    #[derive(Debug)]
    pub(crate) struct Clock(AtomicU64);

    impl Clock {
        pub(crate) fn at(seconds: u64) -> Arc<Self> {
            Arc::new(Self(seconds.into()))
        }

        pub(crate) fn set(&self, seconds: u64) {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    const ISSUED: u64 = 1_800_000_000;

    #[test]
    fn a_ticket_is_good_for_twelve_hours_though_nobody_has_asked_for_one_since() {
        let clock = Clock::at(ISSUED);
        let tickets = DatedTickets::new(clock.clone()).unwrap();
        let ticket = tickets.encrypt(b"a session").unwrap();
        assert_eq!((tickets.enabled(), tickets.lifetime()), (true, 43_200));
        for (seconds, is_good) in
            [(0, true), (43_200, true), (43_201, false), (25 * 86_400, false), (-1, false), (1, true)]
        {
            clock.set(ISSUED.checked_add_signed(seconds).unwrap());
            let session = tickets.decrypt(&ticket);
            assert_eq!(session.as_deref(), is_good.then_some(&b"a session"[..]), "after {seconds} s");
        }
    }

    #[test]
    fn what_these_keys_have_not_sealed_is_no_ticket() {
        let clock = Clock::at(ISSUED);
        let tickets = DatedTickets::new(clock.clone()).unwrap();
        let foreign = DatedTickets::new(clock).unwrap().encrypt(b"a session").unwrap();
        let undated = tickets.keys.encrypt(b"short").unwrap();
        for ticket in [&b""[..], b"a session", &foreign, &undated] {
            assert_eq!(tickets.decrypt(ticket), None);
        }
    }
}
