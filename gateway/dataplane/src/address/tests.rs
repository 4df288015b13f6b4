use super::*;

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct Peer(#[serde(with = "super")] SocketAddr);

#[test]
fn addresses_keep_their_scope() {
    let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3).into();
    for address in
        ["10.0.0.1:5004".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap(), link_local]
    {
        let bytes = rmp_serde::to_vec_named(&Peer(address)).unwrap();
        assert_eq!(rmp_serde::from_slice::<Peer>(&bytes).unwrap(), Peer(address));
    }
}
