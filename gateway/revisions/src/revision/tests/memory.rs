use super::super::*;
use crate::samples::{active, revision, with_canary, with_previous};

fn state(plugin: &str, schema: u32, byte: u8) -> Arc<PluginState> {
    Arc::new(PluginState { plugin: plugin.into(), schema, bytes: [byte].into() })
}

#[test]
fn each_revision_reads_its_state_after_rollback() {
    let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
    let both = with_canary(&old, &new, 50);
    let mut memory = StateVersions::default();
    memory.write(state("p", 1, 1), Some(&both));
    assert_eq!(memory.read(Some(&new)), Some(&state("p", 1, 1)), "it migrates the older state");
    memory.write(state("p", 2, 2), Some(&both));
    memory.write(state("p", 2, 3), Some(&both));
    assert_eq!(memory.read(Some(&new)), Some(&state("p", 2, 3)));
    assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));

    // Promoted, and rolled back: the old revision resumes with its last state.
    let promoted = with_previous(&new, &old);
    memory.write(state("p", 2, 4), Some(&promoted));
    let back = active(&old);
    assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));
    memory.write(state("p", 1, 5), Some(&back));
    assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 5)));
    assert!(!memory.keeps_other(), "no other revision can return");
}

#[test]
fn states_of_another_plugin_are_kept_for_it() {
    let (old, new) = (revision("a", "p", 1), revision("b", "q", 1));
    let both = with_canary(&old, &new, 50);
    let mut memory = StateVersions::default();
    memory.write(state("p", 1, 1), Some(&both));
    assert_eq!(memory.read(Some(&new)), None, "no state of this plugin yet");
    memory.write(state("q", 1, 2), Some(&both));
    memory.write(state("p", 1, 3), Some(&both));
    assert_eq!(memory.read(Some(&new)), Some(&state("q", 1, 2)), "both ways");
    assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 3)));
}

#[test]
fn revisions_of_one_schema_share_a_state() {
    let both = with_canary(&revision("a", "p", 1), &revision("b", "p", 1), 50);
    let mut memory = StateVersions::default();
    memory.write(state("p", 1, 1), Some(&both));
    memory.write(state("p", 1, 2), Some(&both));
    assert!(!memory.keeps_other());
}

#[test]
fn settling_keeps_the_active_revisions_state() {
    let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
    let open = with_previous(&new, &old);
    let mut memory = StateVersions::default();
    memory.write(state("p", 1, 1), Some(&open));
    memory.write(state("p", 2, 2), Some(&open));
    let mut back = memory.clone();
    memory.settle(&new);
    back.settle(&old);
    assert!(!memory.keeps_other() && !back.keeps_other());
    assert_eq!(memory.read(None), Some(&state("p", 2, 2)));
    assert_eq!(back.read(None), Some(&state("p", 1, 1)));
}

#[test]
fn each_revision_has_its_memo_after_rollback() {
    let memo = |byte: u8| PluginState {
        plugin: "p".into(),
        schema: u32::from(byte),
        bytes: [byte].into(),
    };
    let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
    let alone = active(&old);
    let both = with_canary(&old, &new, 50);
    let promoted = with_previous(&new, &old);
    let mut memos = Memos::default();
    memos.turn(&Revisions::default(), &alone);
    memos.write(Arm::Standing, memo(1));
    memos.turn(&alone, &both);
    assert_eq!(memos.read(Arm::Canary), Some(&memo(1)), "it begins with the active memo");
    memos.write(Arm::Canary, memo(2));
    assert_eq!(
        (memos.read(Arm::Standing), memos.read(Arm::Canary)),
        (Some(&memo(1)), Some(&memo(2)))
    );
    memos.turn(&both, &promoted);
    assert_eq!(memos.read(Arm::Standing), Some(&memo(2)));
    memos.turn(&promoted, &alone);
    assert_eq!(memos.read(Arm::Standing), Some(&memo(1)));
    memos.turn(&alone, &both);
    memos.write(Arm::Canary, memo(2));
    memos.turn(&both, &alone);
    assert_eq!(memos.read(Arm::Standing), Some(&memo(1)), "the canary's memo went with it");
}
