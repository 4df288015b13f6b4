//! Load clients over the API, a node death, and their report.

use std::time::{Duration, Instant};

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, CrowdPlan, InjectedFault, ObservationWindow, Scope};
use evenkeel_lab::sample_node::number_of;

use crate::harness::{Gateway, Node, TIMEOUT, World};

/// The admin API of a gateway, shut down on drop.
pub(crate) struct Api {
    place: ApiEndpoint,
    thread: Option<evenkeel_api::ApiThread>,
}

impl Api {
    pub(crate) fn of(gateway: &Gateway) -> Api {
        let settings = gateway.settings.admin.clone();
        let place = ApiEndpoint::Unix(settings.socket.clone());
        let handle = gateway.handle.clone();
        let thread = evenkeel_api::start(settings, handle, Box::new(|_| String::new())).unwrap();
        Api { place, thread: Some(thread) }
    }

    pub(crate) fn admin(&self) -> ApiClient {
        ApiClient::new(self.place.clone())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.thread.take().unwrap().shut_down();
    }
}

/// Waits until the window meets the condition.
async fn await_window(crowd: &Crowd, what: &str, holds: impl Fn(&ObservationWindow) -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !holds(&crowd.window()) {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A fault of everything since the window began.
fn of_everybody(window: &ObservationWindow) -> InjectedFault {
    InjectedFault { at_ns: window.span.start, scope: Scope::Everybody }
}

/// True if all listeners hear.
fn all_hear(window: &ObservationWindow) -> bool {
    let effect = window.effect_of(&of_everybody(window));
    effect.hit == 6 && effect.unheard == 0
}

#[test]
fn crowd_report_counts_hits_losses_and_witnesses() {
    let mut nodes = ["east-a1", "east-b1", "west-a1"].map(Node::agent);
    let gateway = World::of(&nodes.each_ref()).start();
    let api = Api::of(&gateway);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut crowd = Crowd::enter(&CrowdPlan::new(12), || api.admin()).await.unwrap();
        assert_eq!(crowd.by_id().len(), 12);
        await_window(&crowd, "all listeners hear", all_hear).await;
        let quiet = crowd.end_window().await;
        let effect = quiet.effect_of(&of_everybody(&quiet));
        assert_eq!((effect.misdelivered, effect.rooms_moved), (0, 0));
        assert_eq!(effect.detections, []);

        let on_it = |node: &Node| {
            let nodes = [number_of(&node.name)].into();
            quiet
                .effect_of(&InjectedFault { at_ns: quiet.span.end, scope: Scope::Nodes(nodes) })
                .hit
        };
        let busiest = (0..nodes.len()).max_by_key(|&place| on_it(&nodes[place])).unwrap();
        let hit = on_it(&nodes[busiest]);
        let name = nodes[busiest].name.clone();
        crowd.begin_window();
        let on_busiest = |at_ns| {
            let scope = Scope::Nodes([number_of(&name)].into());
            InjectedFault { at_ns, scope }
        };
        let is_heard = |window: &ObservationWindow| {
            all_hear(window) && window.effect_of(&on_busiest(window.span.end)).hit == hit
        };
        await_window(&crowd, "all listeners hear again", is_heard).await;
        let fault = on_busiest(clock::now_ns());
        nodes[busiest].die();
        await_window(&crowd, "the rooms have moved, and all hear", |window| {
            let effect = window.effect_of(&fault);
            let left = effect.left_ns.iter().all(|ns| *ns < window.span.end - fault.at_ns);
            left && effect.unheard == 0
                && effect.rooms_moved == hit as u64
                && !effect.detections.is_empty()
        })
        .await;
        let window = crowd.end_window().await;
        let effect = window.effect_of(&fault);
        assert_eq!((effect.hit, effect.gaps_ns.len(), effect.unheard), (hit, hit, 0));
        assert_eq!((effect.rooms_hit, effect.rooms_moved), (hit as u64, hit as u64));
        assert_eq!(effect.causes.get("node-down"), Some(&(hit as u64)));
        assert_eq!((effect.stragglers, effect.misdelivered, effect.twice), (0, 0, 0));
        let found = &effect.detections[0];
        assert_eq!(found.node, name);
        assert!(!found.by_witness.is_empty());
        assert!(found.by_witness.values().all(|since| *since <= found.after_ms));

        // A window contains only its own records.
        await_window(&crowd, "all listeners hear by the other nodes", all_hear).await;
        let effect = crowd.end_window().await.effect_of(&fault);
        assert_eq!((effect.of_the_hit, effect.lost, effect.detections.len()), (0, 0, 0));
        crowd.leave(&mut api.admin()).await.unwrap();
    });
    assert_eq!(gateway.status().sessions, 0);
}
