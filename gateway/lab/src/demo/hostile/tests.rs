use evenkeel_host::{Component, Engine, shipped};

use super::*;

#[test]
fn all_but_the_broken_plugin_are_modules() {
    let routing = shipped().iter().find(|plugin| plugin.name == "route-nearest").unwrap();
    let engine = Engine::new();
    for kind in HostilePlugin::ALL {
        let module = plugin(kind, routing.bytes, 7).unwrap();
        let is_module = module.starts_with(b"\0asm");
        assert_eq!(is_module, kind != HostilePlugin::Broken, "{kind:?}");
        let vetted = Component::vet(&engine, &module);
        assert_eq!(vetted.is_ok(), kind != HostilePlugin::Broken, "{kind:?}: {:?}", vetted.err());
    }
}
