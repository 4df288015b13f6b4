use super::*;
use crate::component::Component;
use crate::shipped;

fn plugin() -> &'static [u8] {
    shipped()[0].bytes
}

#[test]
fn code_of_another_compiler_runs() {
    let engine = Engine::new();
    let order = Order::new(&engine, plugin());
    let code = order.accept(fulfil(&order.words().concat())).unwrap();
    let component = Component::vet_native(&engine, plugin(), &code).unwrap();
    assert_eq!(&*component.manifest().name, shipped()[0].name);
}

#[test]
fn only_the_answer_to_this_order_is_accepted() {
    let engine = Engine::new();
    let order = Order::new(&engine, plugin());
    let answer = fulfil(&order.words().concat());
    let other = Order::new(&engine, plugin());
    assert!(matches!(other.accept(answer.clone()), Err(Refused::Compiler { .. })));
    for at in [0, 1, MAC_BYTES, MAC_BYTES + 1, answer.len() - 1] {
        let mut changed = answer.clone();
        changed[at] ^= 1;
        assert!(matches!(order.accept(changed), Err(Refused::Compiler { .. })), "byte {at}");
    }
    for cut in [0, 1, MAC_BYTES + 1, answer.len() - 1] {
        let cut = answer[..cut].to_vec();
        assert!(matches!(order.accept(cut), Err(Refused::Compiler { .. })));
    }
}

#[test]
fn compile_error_is_returned() {
    let module = b"\0asm\x01\0\0\0";
    let order = Order::new(&Engine::new(), module);
    let said = order.accept(fulfil(&order.words().concat())).unwrap_err();
    assert!(said.to_string().contains("evenkeel:manifest"), "{said}");
    assert!(matches!(order.accept(fulfil(b"short")), Err(Refused::Engine { .. })));
}

#[test]
fn code_of_another_plugin_is_not_linked() {
    let [one, other, ..] = shipped() else { panic!("plugins are shipped") };
    let engine = Engine::new();
    let code = compile_here(&engine, other.bytes).unwrap();
    let seen = Component::vet_native(&engine, one.bytes, &code);
    assert!(matches!(seen.err(), Some(Refused::Engine { .. })), "they implement other hooks");
}
