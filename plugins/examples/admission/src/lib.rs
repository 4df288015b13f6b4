//! Admission: may this session come in? Here everyone may while there is room; when it gets busy only tenants of the house
//! may, and guests are asked to come again later.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings)]
pub struct House {
    /// Tenants (label `tenant`) who may always come in.
    #[setting(default = [])]
    tenants: Vec<String>,
    /// From this load of their region on guests stay out.
    #[setting(default = 800, unit = "permille", min = 0, max = 1000)]
    busy: u32,
    /// When they may try again.
    #[setting(default = "10s", min = "100ms", max = "10m")]
    retry_after: Duration,
}

/// Why somebody came in or stayed out.
#[derive(Reason)]
pub enum Why {
    /// There is room.
    Room = 1,
    /// It is a tenant.
    Tenant = 2,
    /// It is busy, and this is a guest.
    Busy = 3,
}

#[admission]
impl Admission for House {
    type Reason = Why;
    const READS: &'static [Metric] = &[Metric::Load];

    fn admit(
        &self,
        newcomer: &NewSession<'_>,
        standing: Option<RegionId>,
        regions: &Regions<'_>,
    ) -> Judgement {
        // The region where its room stands; for the first session of a room the one it is nearest to.
        let region = standing.or(newcomer.region()).and_then(|region| regions.region(region));
        let Some(load) = region.and_then(|region| region.load_permille()) else {
            // No opinion: the gateway's own limits decide.
            return Verdict::Abstain.into();
        };
        note(0, "load_permille", load.into());
        let tenant = newcomer.labels.value(label::TENANT);
        if tenant.is_some_and(|tenant| self.tenants.iter().any(|known| known == tenant)) {
            return Verdict::Accept.because(Why::Tenant);
        }
        match load < self.busy {
            true => Verdict::Accept.because(Why::Room),
            false => Verdict::Reject(self.retry_after).because(Why::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Trial, World};

    use super::*;

    #[test]
    fn guests_stay_out_when_it_is_busy_and_tenants_never() {
        let later = Verdict::Reject(Duration::from_secs(10));
        for (load, tenant, verdict) in [
            (799, "guest", Verdict::Accept),
            (800, "guest", later),
            (1_000, "acme", Verdict::Accept),
        ] {
            let policy = House::parse(r#"{"tenants": ["acme"]}"#).expect("settings of it");
            let world = World::around("east").region("east", &[(Metric::Load, load)]);
            let judgement = Trial::of(policy, world).admit(1, &[("tenant", tenant)], None);
            assert_eq!(judgement.verdict(), verdict, "{load} {tenant}");
        }
    }
}
