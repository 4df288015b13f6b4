use super::*;

#[test]
fn names_in_keys_are_escaped() {
    let keys = IndexKeys::new("edge.1/überall");
    assert_eq!(keys.owner(), "edge=2E1/=C3=BCberall.owner");
    assert_eq!(keys.member("a.b"), "edge=2E1/=C3=BCberall.member.a=2Eb");
    let (group, id) = split("edge=2E1/=C3=BCberall.session.s17").unwrap();
    assert_eq!((&*group, SessionId::parse(id)), ("edge.1/überall", Some(SessionId(17))));
    assert_eq!(split("=65dge.session.s17"), None, "another spelling of `edge`");
}

#[test]
fn values_of_other_versions_are_ignored() {
    let owner = OwnerEntry { v: VERSION, gateway: "a".into(), epoch: 3 };
    assert_eq!(decode(&encode(&owner)), Some(owner.clone()));
    assert_eq!(decode::<OwnerEntry>(&encode(&OwnerEntry { v: 2, ..owner })), None);
    assert_eq!(decode::<OwnerEntry>(b"{}"), None);
    assert_eq!(decode::<OwnerEntry>(b"\xff"), None);
}
