// Replaced by `make reference` with the code that `wit-bindgen` generates.
pub mod evenkeel {
    pub mod policy {
        pub mod data {
            #[cfg(target_arch = "wasm32")]
            #[repr(C)]
            struct Text {
                at: *const u8,
                size: usize,
            }
            #[cfg(target_arch = "wasm32")]
            #[repr(C)]
            struct Found {
                is_found: u8,
                at: *mut u8,
                size: usize,
            }
            #[cfg(target_arch = "wasm32")]
            #[link(wasm_import_module = "evenkeel:policy/data@0.1.1")]
            unsafe extern "C" {
                #[link_name = "lookup"]
                fn lookup_import(at: *const u8, size: usize, path: *const Text, count: usize, found: *mut Found);
            }
            #[cfg(target_arch = "wasm32")]
            pub fn lookup(document: &str, path: &[String]) -> Option<String> {
                let parts: Vec<Text> = path.iter().map(|part| Text { at: part.as_ptr(), size: part.len() }).collect();
                let mut found = Found { is_found: 0, at: ::core::ptr::null_mut(), size: 0 };
                unsafe {
                    lookup_import(document.as_ptr(), document.len(), parts.as_ptr(), parts.len(), &mut found);
                    (found.is_found != 0)
                        .then(|| String::from_utf8_unchecked(Vec::from_raw_parts(found.at, found.size, found.size)))
                }
            }
            #[cfg(not(target_arch = "wasm32"))]
            pub fn lookup(_document: &str, _path: &[String]) -> Option<String> {
                unreachable!()
            }
        }
    }
}
