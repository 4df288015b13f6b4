# A fresh machine needs rustup and a C compiler; these targets install the rest.
CARGO ?= cargo
WASM  := wasm32-unknown-unknown
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),./target))
BUILT := $(TARGET)/release

# Lists the targets with the first sentence above each.
help:
	@awk '/^# / { text = text " " substr($$0, 3); next } \
	  /^[a-z][a-z0-9 -]*:( |$$)/ { sub(/:.*/, ""); sub(/[.:;] .*/, ".", text); if (text) printf "%-34s%s\n", $$0, text } \
	  !/^[A-Z]+ *[?:]?=/ { text = "" }' Makefile

.PHONY: help demo page test lint doc fuzz loom miri deny sbom simulate simulate-rows simulate-mutations chaos gate interop keep-report bench bench-quick bench-policy bench-media bench-mutants bench-diagnosis bench-forecast e2e-telemetry instructions instructions-renew clients reference release-contract target

# Builds, then plays 40 s: six nodes, 200 sessions, failures.
demo: target
	$(CARGO) build --release -p evenkeel
	$(BUILT)/evenkeel demo

# Builds the page of `evenkeel demo --serve`, which the binary embeds, into gateway/web/dist. Needs npm.
page:
	cd gateway/web && npm install --silent --no-audit --no-fund && npm run --silent build

# Builds everything and runs all tests; some of them start the binary. Ends with the names of tests that were ignored, each with what
# it needs; with EVENKEEL_REQUIRED=all those fail.
test: target
	EVENKEEL_BUILT=$(TARGET)/debug/evenkeel tests/run $(CARGO) test --workspace --no-fail-fast

# Checks format and lints; a warning is an error.
lint: target
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p evenkeel --no-default-features -- -D warnings

# Checks mutated and random input of every parser for TIME seconds in all and prints a line per target. `make test` does so
# for a second each. Input that broke a rule belongs into tests/fuzz/corpus.
TIME ?= 60
fuzz: target
	tests/fuzz/run $(TIME)

# Runs the board, the routes, the lease and the ring in every order of their threads' steps with at most PREEMPTIONS
# preemptions, and with every value that a load may return.
PREEMPTIONS ?= 3
loom:
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=$(PREEMPTIONS) \
	  $(CARGO) test --target-dir $(TARGET)/loom -p evenkeel-model -p evenkeel-dataplane --test loom

# Interprets tests under Miri, which detects undefined behaviour and data races: the model, the ring and the flow table.
# Skipped without a nightly toolchain that has Miri; `.ci/run` ends with its name then.
miri:
	.ci/miri

# Checks dependencies by deny.toml: licences, duplicate versions, sources, and advisories if their database is reachable.
deny:
	.ci/deny

# Writes what the binary and the embedded plugins are made of to target/sbom, as CycloneDX.
sbom: target
	.ci/sbom

# Builds the documentation of all crates; a warning is an error.
doc: target
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Plays SEEDS random worlds in virtual time from seed FROM on, or the world of SEED with a trace. The simulator is built
# together with the gateway so that both share the same features of dependencies.
SEEDS ?= 2000
FROM  ?= 0
SIMULATOR := $(CARGO) build --release -p evenkeel -p evenkeel-simulate --bin evenkeel-simulate
simulate: target
	$(SIMULATOR)
	$(BUILT)/evenkeel-simulate $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM))

# Plays the long simulations, all or those named in ROWS: flapping for minutes, a region with 10,000 sessions, thousands
# of kills, and a health check for comparison. Writes target/simulate/report.json; fails if a row misses its target.
simulate-rows: target
	$(SIMULATOR)
	$(BUILT)/evenkeel-simulate --rows $(ROWS)

# Applies one-line bugs to a copy of the tree; the simulation must detect each of them.
simulate-mutations: target
	tests/simulate/mutations/run $(MUTATIONS)

# Measures the gateway, a bare relay, the limit and the installed peers in one run, as root. Writes
# target/bench/report.json.
bench: target
	tests/bench/install full
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench full --evenkeel $(BUILT)/evenkeel

# The same with few repetitions, in about five minutes. Writes target/bench-quick/report.json.
bench-quick: target
	tests/bench/install quick
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench quick --evenkeel $(BUILT)/evenkeel

# Breaks nodes, links and regions under a running gateway and measures the gaps of its sessions, as root. Installs the clients of
# `make interop` first: some rows are of them. Writes target/chaos/report.json, which lists missed targets; the exit status is 0
# if the run completed. ROWS=gateway: only rows with this in their id, RUNS=20: each so many times, with the spread; both write
# target/chaos/part.json.
chaos: target clients
	tests/chaos/install
	$(CARGO) build --release -p evenkeel -p evenkeel-chaos
	$(BUILT)/evenkeel-chaos run --evenkeel $(BUILT)/evenkeel $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS))

# Plays the demo, short benchmarks and the rows that tests/limits.toml has `gate = true` for, as root, in about 25 minutes once built, on a machine that does
# nothing else. Writes target/gate/report.json; fails if a limit was missed. A row whose control run was beyond its limit is not measured.
gate: target clients
	tests/bench/install quick
	tests/chaos/install
	$(GUESTS)
	$(CARGO) build --release -p evenkeel -p evenkeel-bench -p evenkeel-chaos -p evenkeel-report
	tests/gate/run $(BUILT) $(TARGET)/$(WASM)/plugin

# Keeps the report of a finished run, which the tables of docs/benchmarks.md show: COMMAND=bench-quick copies its report.json to
# tests/report/last/bench-quick.json, and COMMAND=chaos PART=gateway the part.json of chaos to chaos.gateway.json.
keep-report:
	$(CARGO) run --quiet -p evenkeel-report -- keep \
	  $(TARGET)/$(COMMAND)/$(if $(PART),part,report).json $(COMMAND)$(if $(PART),.$(PART))

# Measures policies: calls, faults, swaps under load, dropped files and hostile plugins, beside the same functions in
# native code, and rolls out 40 bad and 20 good revisions; as root, half an hour, or a few of each with QUICK=1. Writes
# target/bench-policy/report.json, which lists missed targets; the exit status is 0 if the run completed.
GUESTS := $(CARGO) build --profile plugin --target $(WASM) -p bench-empty -p bench-harm -p bench-misroute -p bench-smooth
bench-policy: target
	$(GUESTS)
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench policy --evenkeel $(BUILT)/evenkeel --guests $(TARGET)/$(WASM)/plugin $(if $(QUICK),--quick)

# Loses packets on the paths of clients, and measures what repair leaves of the losses, beside sessions without repair that lose the same
# packets; calls pages of Chromium over such paths, if it is installed; 55 minutes. ROWS=voice: only rows with this in their id, RUNS=5:
# the median of so many calls of pages. Writes target/bench-media/report.json, or part.json for a part; the exit status is 0 if the run completed.
bench-media: target clients
	$(CARGO) build --release -p evenkeel -p evenkeel-bench
	$(BUILT)/evenkeel-bench media --evenkeel $(BUILT)/evenkeel $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS))

# Makes mutants of the plugins' source, two mutations each, and revisions with other settings, labels both by simulated worlds in which
# they decide alone, and rolls them out, as root: half an hour for the plugins by which a judge may be built, 90 minutes with OF=all.
# OF=judging: those that are not looked at while one is built; N=20: so many mutants, of 120; SEED=7: those of that seed. Writes
# target/bench-policy/part.json.
MUTATED := $(TARGET)/mutants
bench-mutants: target
	$(CARGO) build --release -p evenkeel -p evenkeel-bench -p evenkeel-mutants
	$(BUILT)/evenkeel-mutants write --out $(MUTATED)
	$(CARGO) build --offline --profile plugin --target $(WASM) --manifest-path $(MUTATED)/Cargo.toml --target-dir $(MUTATED)/built
	$(BUILT)/evenkeel-mutants label --out $(MUTATED) --built $(MUTATED)/built/$(WASM)/plugin \
	  $(if $(OF),--of $(OF)) $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED))
	$(BUILT)/evenkeel-bench policy --mutants $(MUTATED)/corpus.json --evenkeel $(BUILT)/evenkeel --out $(TARGET)/bench-policy/part.json

# Breaks one segment of sessions' paths after another (device, uplink, leg, node, gateway, downlink) and counts the sessions for
# which the gateway names it within 5 s, and false names; as root, ten minutes. Writes target/bench-diagnosis/report.json.
bench-diagnosis: target
	tests/chaos/install
	$(CARGO) build --release -p evenkeel -p evenkeel-chaos
	$(BUILT)/evenkeel-chaos diagnosis --evenkeel $(BUILT)/evenkeel

# Generates days of load, nodes and links from seeds, and counts for each forecast the events announced in time and the false
# warnings, beside a naive rule. Writes target/bench-forecast/report.json, which lists missed targets.
bench-forecast: target
	$(CARGO) build --release -p evenkeel-forecast-bench
	$(BUILT)/evenkeel-forecast-bench

# Plays calls through deaths of a node and of a gateway, as root, and reads their traces from Phoenix, with and without the collector rotel
# before it; plays the faults of alert rules before Prometheus and Alertmanager. Writes target/e2e-telemetry/report.json.
e2e-telemetry: target
	tests/telemetry/install
	tests/nats/install
	$(CARGO) build -p evenkeel
	mkdir -p $(TARGET)/e2e-telemetry
	rm -f $(TARGET)/e2e-telemetry/report.json
	EVENKEEL_BUILT=$(TARGET)/debug/evenkeel EVENKEEL_REPORT=$(TARGET)/e2e-telemetry/report.json \
	  $(CARGO) test -p evenkeel-tests --test behaviour -- --nocapture --test-threads 1 --include-ignored \
	  --skip rules_of_a_minute_notice_their_faults trace_backends:: alerts::
	test -s $(TARGET)/e2e-telemetry/report.json

# Counts the instructions of each step of the packet path under valgrind. Fails if one exceeds
# tests/instructions/baseline.json by 5 %; a commit that renews the file says why. Writes target/instructions/report.json.
instructions instructions-renew: target
	tests/bench/install count
	$(CARGO) build --release -p evenkeel-instructions
	$(BUILT)/evenkeel-instructions $(if $(filter %-renew,$@),--renew)

# Calls with browsers, phones and media servers, one after another, as root. Installs them first; those that are missing are skipped by
# name, and a test whose machine is too busy is not measured. Writes target/interop/report.json; the exit status is 0 if the run completed.
interop: target clients
	$(CARGO) build -p evenkeel
	EVENKEEL_BUILT=$(TARGET)/debug/evenkeel python3 tests/interop/report.py $(TARGET)/interop/report.json \
	  $(CARGO) test -p evenkeel-tests --test interop -- --test-threads 1

# Installs the clients of tests/interop and a compiler for policies in C; tests without them are ignored by name.
clients:
	tests/interop/install

# Writes the generated files: plugin-sdk/REFERENCE.md, the SDK's bindings (src/wit) and the registry for C and JavaScript, from the
# registry, the WIT and the limits; the tables of docs/telemetry.md, docs/alerts and docs/dashboards, from the registry of telemetry; those of
# docs/benchmarks.md, from tests/limits.toml and the reports in tests/report/last.
# Tests fail when they are out of date.
reference: target
	EVENKEEL_RENEW=1 $(CARGO) test -q --workspace --test host --test docs -- reference_matches openapi_file_equals_the_answer tables_equal_the_registry dashboards_equal_the_registry tables_equal_the_reports

# Writes the fixtures of a contract release: plugins compiled against it and their answers, which every later gateway must
# reproduce. Once per version of plugin-sdk/wit/policy.wit; released fixtures are never changed.
release-contract: target
	$(CARGO) test -q --workspace --test host -- --ignored release_the_contract

# The build compiles plugins to Wasm.
target:
	@rustup target list --installed | grep -qx $(WASM) || rustup target add $(WASM)
