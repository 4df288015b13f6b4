# Everything a fresh machine needs beside rustup and a C compiler is set up here.
CARGO ?= cargo
WASM  := wasm32-unknown-unknown
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),./target))
BUILT := $(TARGET)/release

.PHONY: demo test lint doc simulate simulate-rows simulate-mutations chaos bench bench-quick bench-policy instructions instructions-renew clients reference release-contract target

demo: target
	$(CARGO) build --release -p evenkeel
	$(BUILT)/evenkeel demo

# The binary that some tests start is built along with them.
test: target
	EVENKEEL_BUILT=$(TARGET)/debug/evenkeel $(CARGO) test --workspace --no-fail-fast

lint: target
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: target
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Whole worlds in virtual time: SEEDS of them (FROM the first), or the one of SEED again with what happens in it.
# It is built beside the gateway, with whose dependencies it shares theirs: alone it would want others, for minutes.
SEEDS ?= 2000
FROM  ?= 0
SIMULATOR := $(CARGO) build --release -p evenkeel -p evenkeel-simulate --bin evenkeel-simulate
simulate: target
	$(SIMULATOR)
	$(BUILT)/evenkeel-simulate $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM))

# The long runs by name, all or those of ROWS: flapping for minutes, a region with 10,000 sessions, kills by the
# thousand, and a health check beside. Written to target/simulate/report.json; a row that misses fails it.
simulate-rows: target
	$(SIMULATOR)
	$(BUILT)/evenkeel-simulate --rows $(ROWS)

# Bugs of one line each, put into a copy of the tree: the simulation must find every one.
simulate-mutations: target
	tests/simulate/mutations/run $(MUTATIONS)

# Figures beside a bare relay, the limit and the peers that can be had; as root. Written to target/bench as JSON.
bench: target
	tests/bench/install full
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench full --evenkeel $(BUILT)/evenkeel

bench-quick: target
	tests/bench/install quick
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench quick --evenkeel $(BUILT)/evenkeel

# Nodes, links and regions broken under a running gateway, with what its sessions heard; as root. Written to
# target/chaos/report.json. Exits 0 when it ran; what did not hold is in there.
chaos: target
	tests/chaos/install
	$(CARGO) build --release -p evenkeel -p evenkeel-chaos
	$(BUILT)/evenkeel-chaos run --evenkeel $(BUILT)/evenkeel

# What policies cost: calls, faults, swaps under load, dropped files, plugins that mean harm; as root, within ten minutes.
# Written to target/bench/policy.json, printed beside the same functions natively and the limits. Exits 0 when it ran; what
# was missed is in there. `QUICK=1` tries a few of each.
bench-policy: target
	$(CARGO) build --profile plugin --target $(WASM) -p bench-empty -p bench-harm -p bench-smooth
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench policy --evenkeel $(BUILT)/evenkeel --guests $(TARGET)/$(WASM)/plugin $(if $(QUICK),--quick)

# What each piece of a packet's way takes, counted under valgrind and compared with tests/bench/instructions.json: 5 %
# more fails. A change that is worth more renews the file, and its commit says why.
instructions instructions-renew: target
	tests/bench/install count
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench instructions $(if $(filter %-renew,$@),--renew)

# Real clients for tests/interop, and a compiler for policies in C; without them those tests are skipped by name.
clients:
	tests/interop/install

# Generated references: plugin-sdk/REFERENCE.md and the registry for C and JavaScript, from the registry, the WIT and the
# limits; the tables of docs/telemetry.md, from the registry of telemetry. Tests fail when they are out of date.
reference: target
	EVENKEEL_RENEW=1 $(CARGO) test -q --workspace --test host --test docs -- reference_matches tables_equal_the_registry

# A release of the contract: plugins compiled against it and what they answer, which every later gateway is held to. Once for
# each version in plugin-sdk/wit/policy.wit; what was released is never written again.
release-contract: target
	$(CARGO) test -q --workspace --test host -- --ignored release_the_contract

# Plugins are compiled to Wasm by the build.
target:
	@rustup target list --installed | grep -qx $(WASM) || rustup target add $(WASM)
