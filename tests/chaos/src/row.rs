//! A row: a stage, sessions, a fault, and checks.

use std::time::Duration;

use crate::Choice;
use crate::fault::Fault;
use crate::layout::Layout;
use crate::limits::Checks;
use crate::webrtc::ThirdParty;

/// Default observation time of a fault.
const WATCHED: Duration = Duration::from_millis(1_200);

/// Sessions of a row of nodes.
const SESSIONS: u32 = 1_000;
/// Sessions of a row of gateways that have hosts of their own. On two cores 1,000 beside both gateways, nodes and clients leave too little of
/// the processors idle, and a gap is then one of clients that lag.
const SESSIONS_BETWEEN_HOSTS: u32 = 500;
/// Fewer sessions give no p99.
const SESSIONS_MIN: u32 = 100;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) layout: Layout,
    pub(crate) sessions: u32,
    /// The sessions of the row itself. A run with another number has an id of its own.
    own_sessions: u32,
    /// Both sessions of a room send.
    pub(crate) both_ways: bool,
    /// Every other room uses QUIC.
    pub(crate) quic: bool,
    /// Clients send video, too. WebRTC clients do in any case.
    pub(crate) video: bool,
    /// Clients by UDP are WebRTC clients.
    pub(crate) webrtc: bool,
    /// All clients use WebTransport.
    pub(crate) webtransport: bool,
    /// The clients are other programs.
    pub(crate) third_party: Option<ThirdParty>,
    /// Clients are behind a simulated NAT, which may change their addresses.
    pub(crate) natted: bool,
    pub(crate) kills: u32,
    /// The shortest idle time of regions without rooms before each fault.
    pub(crate) idle: Duration,
    /// New sessions are opened from the control run on.
    pub(crate) newcomers: bool,
    /// Sessions are offered at a steady rate around each fault. Every answered one is at the gateway afterwards.
    pub(crate) offers: bool,
    pub(crate) fault: Fault,
    /// Observation time of the fault.
    pub(crate) watched: Duration,
    pub(crate) checks: Checks,
}

impl Row {
    /// A fault done once to the sessions of its kind of row.
    pub(crate) const fn new(id: &'static str, layout: Layout, fault: Fault) -> Row {
        let watched = WATCHED;
        let (quic, webrtc, natted, both_ways) = (false, false, false, false);
        let sessions = if layout.gateway_hosts > 0 { SESSIONS_BETWEEN_HOSTS } else { SESSIONS };
        let (kills, idle) = (1, Duration::ZERO);
        let (newcomers, offers, webtransport, third_party) = (false, false, false, None);
        let video = false;
        Row {
            id,
            layout,
            sessions,
            own_sessions: sessions,
            both_ways,
            quic,
            video,
            webrtc,
            webtransport,
            third_party,
            natted,
            kills,
            idle,
            newcomers,
            offers,
            fault,
            watched,
            checks: Checks::ALL,
        }
    }

    /// With these exceptions from the checks of all rows.
    pub(crate) const fn checked(self, checks: Checks) -> Row {
        Row { checks, ..self }
    }

    /// With this number of faults.
    pub(crate) const fn times(self, kills: u32) -> Row {
        Row { kills, ..self }
    }

    /// With an idle time of regions without rooms before each fault.
    pub(crate) const fn after_idle(self, seconds: u64) -> Row {
        Row { idle: Duration::from_secs(seconds), ..self }
    }

    /// With new sessions at a steady rate.
    pub(crate) const fn with_newcomers(self) -> Row {
        Row { newcomers: true, ..self }
    }

    /// With offers around each fault.
    pub(crate) const fn with_offers(self) -> Row {
        Row { offers: true, ..self }
    }

    /// With every other room by QUIC.
    pub(crate) const fn with_quic(self) -> Row {
        Row { quic: true, ..self }
    }

    /// With video.
    pub(crate) const fn with_video(self) -> Row {
        Row { video: true, ..self }
    }

    /// With WebRTC clients.
    pub(crate) const fn webrtc(self) -> Row {
        Row { webrtc: true, ..self }
    }

    /// With clients of WebTransport.
    pub(crate) const fn webtransport(self) -> Row {
        Row { webtransport: true, ..self }
    }

    /// With clients that are other programs.
    pub(crate) const fn with_third_party(self, clients: ThirdParty) -> Row {
        Row { third_party: Some(clients), ..self.of(clients.sessions()).webrtc() }
    }

    /// Clients of the lab receive media.
    pub(crate) fn has_lab_clients(&self) -> bool {
        self.third_party.is_none_or(ThirdParty::has_lab_viewers)
    }

    /// With clients behind a NAT.
    pub(crate) const fn natted(self) -> Row {
        Row { natted: true, ..self }
    }

    /// With both sessions of a room sending.
    pub(crate) const fn both_ways(self) -> Row {
        Row { both_ways: true, ..self }
    }

    /// With this number of sessions.
    pub(crate) const fn of(self, sessions: u32) -> Row {
        Row { sessions, own_sessions: sessions, ..self }
    }

    /// The id in the report, such as `gateway.kill@250` for a run with fewer sessions than the row has.
    pub(crate) fn report_id(&self) -> String {
        match self.sessions == self.own_sessions {
            true => self.id.to_owned(),
            false => format!("{}@{}", self.id, self.sessions),
        }
    }

    /// With this observation time.
    pub(crate) const fn watched(self, seconds: u64) -> Row {
        Row { watched: Duration::from_secs(seconds), ..self }
    }

    /// The reason why the row cannot run here.
    pub(crate) fn requirement(&self) -> Result<(), String> {
        self.layout.requirement()?;
        self.third_party.map_or(Ok(()), ThirdParty::require)
    }

    /// Half the sessions, if both of a room send and there are many.
    pub(crate) fn halved(self) -> Option<Row> {
        let sessions = self.sessions / 2;
        (self.both_ways && sessions >= SESSIONS_MIN).then_some(Row { sessions, ..self })
    }

    /// With the options of the command line.
    pub(crate) fn scaled(self, choice: &Choice) -> Row {
        let sessions =
            choice.sessions.filter(|_| self.third_party.is_none()).unwrap_or(self.sessions);
        let kills = choice.kills.unwrap_or(self.kills);
        let both_ways = choice.both_ways || self.both_ways;
        Row { sessions, kills, both_ways, ..self }
    }
}

#[cfg(test)]
mod tests {
    use crate::rows;

    #[test]
    fn run_with_fewer_sessions_has_its_own_id() {
        let row = rows::all().into_iter().find(|row| row.id == "gateway.kill").unwrap();
        assert_eq!((row.sessions, row.report_id().as_str()), (500, "gateway.kill"));
        assert_eq!(row.halved().unwrap().report_id(), "gateway.kill@250");
    }

    #[test]
    fn rows_between_hosts_have_at_most_500_sessions() {
        for row in rows::all().iter().filter(|row| row.layout.gateway_hosts > 0) {
            assert!(row.sessions <= 500, "{} has {}", row.id, row.sessions);
        }
    }
}
