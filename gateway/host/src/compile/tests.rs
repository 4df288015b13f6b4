use super::*;
use crate::component::Component;
use crate::shipped;

fn plugin() -> &'static [u8] {
    shipped()[0].bytes
}

#[test]
fn code_of_another_compiler_runs() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin());
    let code = order.accept(CompilerOutput(fulfil(&order.words().concat()))).unwrap();
    let component = Component::vet_native(&engine, plugin(), &code).unwrap();
    assert_eq!(&*component.manifest().name, shipped()[0].name);
}

#[test]
fn incomplete_answer_is_refused() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin());
    let answer = fulfil(&order.words().concat());
    let longer = [&answer[..], b"more"].concat();
    let cuts = [0, 1, HEAD_BYTES, answer.len() - 1].map(|cut| answer[..cut].to_vec());
    let mut of_no_kind = answer.clone();
    of_no_kind[0] = b'X';
    for answer in cuts.into_iter().chain([longer, of_no_kind]) {
        assert!(matches!(
            order.accept(CompilerOutput(answer)),
            Err(PluginRefusal::Compiler { .. })
        ));
    }
    assert!(order.accept(CompilerOutput(answer)).is_ok());
}

#[test]
fn output_that_is_no_code_is_not_loaded() {
    let engine = Engine::new();
    let forged = b"\x7fELF, or so it says";
    let answer = [&[CODE], &(forged.len() as u64).to_le_bytes()[..], forged].concat();
    let code = CompileOrder::new(&engine, plugin()).accept(CompilerOutput(answer)).unwrap();
    let loaded = Component::vet_native(&engine, plugin(), &code);
    assert!(matches!(loaded.err(), Some(PluginRefusal::Engine { .. })));
}

#[test]
fn compiler_gets_no_key_and_signs_nothing() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin()).words().concat();
    assert_eq!(order[1..], *plugin());
    let code = compile_here(&engine, plugin()).unwrap();
    assert_eq!(fulfil(&order)[HEAD_BYTES..], *code.bytes());
}

#[test]
fn compile_error_is_returned() {
    let module = b"\0asm\x01\0\0\0";
    let order = CompileOrder::new(&Engine::new(), module);
    let said = order.accept(CompilerOutput(fulfil(&order.words().concat()))).unwrap_err();
    assert!(said.to_string().contains("evenkeel:manifest"), "{said}");
    assert!(matches!(
        order.accept(CompilerOutput(fulfil(b"short"))),
        Err(PluginRefusal::Engine { .. })
    ));
}

#[test]
fn code_of_another_plugin_is_not_linked() {
    let [one, other, ..] = shipped() else { panic!("plugins are shipped") };
    let engine = Engine::new();
    let code = compile_here(&engine, other.bytes).unwrap();
    let seen = Component::vet_native(&engine, one.bytes, &code);
    assert!(matches!(seen.err(), Some(PluginRefusal::Engine { .. })), "they implement other hooks");
}
