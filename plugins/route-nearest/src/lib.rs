//! x
use evenkeel_plugin_sdk::prelude::*;

#[derive(Settings)]
struct Near {
    /// doc "q"
    #[setting(default = 30, unit = "ms", min = 1)]
    jitter: u32,
    #[setting(default = "8s", min = "1s")]
    up: Duration,
}

#[routing]
impl Routing for Near {
    fn place(&self, _room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement<()> {
        let _ = (self.jitter, self.up);
        Placement::on(nodes.iter().map(|n| n.id()))
    }
    fn reroute(&self, _: &Rooms<'_>, _: &Nodes<'_>, _: &mut Moves) {}
}
#[test]
fn m() { println!("{}", <Near as evenkeel_plugin_sdk::Policy>::MANIFEST); panic!() }
