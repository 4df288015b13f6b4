// Replaced by `make reference` with the code that `wit-bindgen` generates.
#[rustfmt::skip]
#[allow(dead_code, clippy::all)]
pub mod evenkeel {
    pub mod policy {
        pub mod data {
            #[used]
            #[doc(hidden)]
            static __FORCE_SECTION_REF: fn() = super::super::super::__link_custom_section_describing_imports;
            #[repr(C)]
            struct Text {
                at: *const u8,
                size: usize,
            }
            #[repr(C)]
            struct Found {
                is_found: u8,
                at: *mut u8,
                size: usize,
            }
            pub fn lookup(document: &str, path: &[String]) -> Option<String> {
                #[cfg(target_arch = "wasm32")]
                #[link(wasm_import_module = "evenkeel:policy/data@0.1.1")]
                unsafe extern "C" {
                    #[link_name = "lookup"]
                    fn wit_import(_: *const u8, _: usize, _: *const Text, _: usize, _: *mut Found);
                }
                #[cfg(not(target_arch = "wasm32"))]
                unsafe extern "C" fn wit_import(_: *const u8, _: usize, _: *const Text, _: usize, _: *mut Found) {
                    unreachable!()
                }
                let parts: Vec<Text> = path.iter().map(|part| Text { at: part.as_ptr(), size: part.len() }).collect();
                let mut found = Found { is_found: 0, at: ::core::ptr::null_mut(), size: 0 };
                unsafe {
                    wit_import(document.as_ptr(), document.len(), parts.as_ptr(), parts.len(), &mut found);
                    (found.is_found != 0)
                        .then(|| String::from_utf8_unchecked(Vec::from_raw_parts(found.at, found.size, found.size)))
                }
            }
        }
    }
}
#[rustfmt::skip]
#[cfg(target_arch = "wasm32")]
#[unsafe(
    link_section = "component-type:wit-bindgen:0.60.0:evenkeel:sdk:data-reader:encoded world"
)]
#[doc(hidden)]
#[allow(clippy::octal_escapes)]
pub static __WIT_BINDGEN_COMPONENT_TYPE: [u8; 236] = *b"\
\0asm\x0d\0\x01\0\0\x19\x16wit-component-encoding\x04\0\x07k\x01A\x02\x01A\x02\x01\
B\x04\x01ps\x01ks\x01@\x02\x08documents\x04path\0\0\x01\x04\0\x06lookup\x01\x02\x03\
\0\x1aevenkeel:policy/data@0.1.1\x05\0\x04\0\x18evenkeel:sdk/data-reader\x04\0\x0b\
\x11\x01\0\x0bdata-reader\x03\0\0\0G\x09producers\x01\x0cprocessed-by\x02\x0dwit\
-component\x070.254.2\x10wit-bindgen-rust\x060.60.0";
#[inline(never)]
#[doc(hidden)]
pub fn __link_custom_section_describing_imports() {
    wit_bindgen::rt::maybe_link_cabi_realloc();
}
