//! Drivers of tests: one without signalling, and one with a trunk.

use super::*;

pub(crate) const DRIVERS: [&dyn DriverKind; 2] = [&Plain, &Agent];

struct Plain;

impl DriverKind for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const { &[DriverKey::new("address"), DriverKey::new("probe")] }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let probe = keys.probe();
        let settings = DriverSettings::new(self.name(), probe, Signalling::None);
        Some(settings.showing("probe", probe.name()))
    }
}

struct Agent;

impl DriverKind for Agent {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const {
            &[
                DriverKey::new("address"),
                DriverKey::new("secret_file"),
                DriverKey::new("canary"),
                DriverKey::new("encrypt"),
            ]
        }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let trunk = Signalling::Trunk { secret: keys.secret()?, encrypt: false };
        Some(DriverSettings::new(self.name(), NodeProbe::Signed, trunk).showing("encrypt", false))
    }
}
