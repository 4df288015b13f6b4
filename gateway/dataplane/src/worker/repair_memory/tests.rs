use super::*;

#[test]
fn memory_is_reserved_up_to_the_limit() {
    let memory = RepairMemory::new(100);
    assert!(memory.reserve(60) && !memory.reserve(41) && memory.reserve(40));
    assert!(!memory.reserve(usize::MAX), "no overflow");
    memory.release(60);
    assert!(memory.reserve(60));
    assert_eq!(memory.reserved(), 100);
}

#[test]
fn memory_of_a_cache_is_released_with_it() {
    let memory = RepairMemory::new(100);
    let (mut one, mut other) = (ReservedMemory::default(), ReservedMemory::default());
    assert!(one.grow_to(30, &memory) && one.grow_to(60, &memory) && other.grow_to(40, &memory));
    assert!(one.grow_to(50, &memory), "it has them");
    assert!(!other.grow_to(41, &memory));
    assert_eq!(memory.reserved(), 100);
    drop(one);
    assert_eq!(memory.reserved(), 40);
    drop(other);
    assert_eq!(memory.reserved(), 0);
}
