use super::*;

struct Exchange {
    own: watch::Sender<ForecastText>,
    copied: watch::Receiver<ForecastText>,
    owner: ForecastExchange,
    standby: ForecastExchange,
    now: Instant,
}

impl Exchange {
    fn new() -> Exchange {
        let ends = || (watch::channel(None), watch::channel(None));
        let (((own, to_send), (sink, _)), ((_, none), (copies, copied))) = (ends(), ends());
        Exchange {
            own,
            copied,
            owner: ForecastExchange::new(to_send, sink),
            standby: ForecastExchange::new(none, copies),
            now: Instant::now(),
        }
    }

    /// Passes on the part that is due a second later. Returns the number of its bytes.
    fn pass(&mut self) -> Option<usize> {
        self.now += PART_EVERY;
        let part = self.owner.next_part(self.now)?;
        let length = part.text.len();
        self.standby.take(part);
        Some(length)
    }

    fn copy(&self) -> ForecastText {
        self.copied.borrow().clone()
    }
}

/// Text whose parts end within a character.
fn text(letter: char) -> Arc<str> {
    let letters = std::iter::repeat_n(letter, PART_BYTES);
    std::iter::once('x').chain(letters).collect::<String>().into()
}

#[test]
fn copy_is_whole_once_all_parts_came() {
    let mut exchange = Exchange::new();
    assert_eq!(exchange.pass(), None);
    let [first, second] = ['é', 'ü'].map(text);
    exchange.own.send_replace(Some(Arc::clone(&first)));
    assert_eq!(exchange.pass(), Some(PART_BYTES - 1));
    assert_eq!(exchange.owner.next_part(exchange.now), None, "one part a second");
    exchange.own.send_replace(Some(Arc::clone(&second)));
    assert_eq!((exchange.pass(), exchange.copy()), (Some(PART_BYTES), None));
    assert_eq!((exchange.pass(), exchange.copy()), (Some(2), Some(first.clone())));
    while exchange.pass().is_some() {}
    assert_eq!(exchange.copy(), Some(second), "changed forecasts follow");
}

#[test]
fn new_standby_gets_all_parts_again() {
    let mut exchange = Exchange::new();
    let all = text('é');
    exchange.own.send_replace(Some(Arc::clone(&all)));
    exchange.pass();
    let part = exchange.owner.next_part(exchange.now + PART_EVERY);
    let fresh = Exchange::new();
    (exchange.standby, exchange.copied) = (fresh.standby, fresh.copied);
    exchange.standby.take(part.unwrap());
    while exchange.pass().is_some() {}
    assert_eq!(exchange.copy(), None, "the first part is missing");
    exchange.owner.begin();
    while exchange.pass().is_some() {}
    assert_eq!(exchange.copy(), Some(all));
}

#[test]
fn part_beyond_the_announced_size_is_dropped() {
    let mut exchange = Exchange::new();
    for (at, of) in [(0, 3), (0, BYTES_MAX as u32 + 1), (4, 8)] {
        exchange.standby.take(ForecastPart { at, of, text: "four".into() });
        assert_eq!((exchange.standby.received.len(), exchange.copy()), (0, None));
    }
    exchange.standby.take(ForecastPart { at: 0, of: 4, text: "four".into() });
    assert_eq!(exchange.copy().as_deref(), Some("four"));
}
