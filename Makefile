# Everything a fresh machine needs beside rustup and a C compiler is set up here.
CARGO ?= cargo
WASM  := wasm32-unknown-unknown

.PHONY: demo test lint doc clients target

demo: target
	$(CARGO) build --release -p evenkeel
	./target/release/evenkeel demo

test: target
	$(CARGO) test --workspace --no-fail-fast

lint: target
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: target
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Real clients for tests/interop; without them those tests are skipped by name.
clients:
	tests/interop/install

# Plugins are compiled to Wasm by the build.
target:
	@rustup target list --installed | grep -qx $(WASM) || rustup target add $(WASM)
