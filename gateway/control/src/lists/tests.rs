use super::*;

fn slice(items: &[u64], last: Option<u64>) -> Slice<u64, u64> {
    Slice { items: items.to_vec(), last }
}

#[test]
fn reply_comes_with_the_last_slice() {
    let (reply, mut answer) = oneshot::channel();
    let list = PartialList::new(0, usize::MAX, reply);
    // Entries 3 to 5 have no item.
    let list = list.add(slice(&[1, 2], Some(5))).expect("more follow");
    assert!(answer.try_recv().is_err());
    assert_eq!(list.after, 5);
    assert!(list.add(slice(&[6], None)).is_none());
    assert_eq!(answer.try_recv(), Ok(vec![1, 2, 6]));
}

#[test]
fn list_ends_at_its_limit() {
    for limit in [3, 4] {
        let (reply, mut answer) = oneshot::channel();
        let list = PartialList::new(0, limit, reply).add(slice(&[1, 2], Some(2)));
        assert!(list.expect("more follow").add(slice(&[3, 4], Some(4))).is_none());
        assert_eq!(answer.try_recv().map(|all| all.len()), Ok(limit));
    }
}

#[test]
fn list_ends_without_its_caller() {
    let (reply, answer) = oneshot::channel();
    drop(answer);
    assert!(PartialList::new(0, usize::MAX, reply).add(slice(&[1], Some(1))).is_none());
}
