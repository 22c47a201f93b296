# A thin face over cargo and deploy/tools. CARGO_TARGET_DIR is honoured, as cargo does.

.DEFAULT_GOAL := help
.PHONY: help demo test check simulate chaos bench api-fuzz

help:
	@echo 'make demo          one event of each kind, from callback to verified delivery; stays up until Ctrl-C'
	@echo 'make demo ONCE=1   the same, and exits: 0 if all was delivered and verified'
	@echo 'make check         formatting, lints, and that the pure code is pure'
	@echo 'make test          every test, against a real nats-server'
	@echo 'make simulate      worlds under virtual time: SEEDS=100000 of them, or the one of SEED=n, which then tells what happened'
	@echo 'make chaos         kill, pause and cut off real processes under load, and check the logs'
	@echo '                   CHAOS="--scenario storm --scale 0.1" passes arguments (CHAOS=--help lists them)'
	@echo 'make api-fuzz      call the management API by its own OpenAPI document, and check every answer'
	@echo 'make bench         how fast it is, beside ceilings of the same round; wants the machine for itself'
	@echo '                   BENCH="--only one,ten --rounds 1" passes arguments (BENCH=--help lists them)'

# All three are built by one command, so that what they share is compiled once. The last command
# replaces the shell, so that Ctrl-C reaches the demo, which ends what it started.
demo:
	@NATS_SERVER=$$(deploy/tools/nats-server) || exit 1; \
	export NATS_SERVER; \
	echo 'Building ingest, dispatcher and the demo; the first time takes some minutes.'; \
	cargo build -q -p ingest -p dispatcher -p system-tests --bins || exit 1; \
	exec cargo run -q -p system-tests --bin demo -- $(if $(filter-out 0,$(ONCE)),--once)

# The binaries are built together with the tests, so that features are unified once; the system
# tests start them as processes of their own.
test:
	@NATS_SERVER=$$(deploy/tools/nats-server) || exit 1; \
	export NATS_SERVER; \
	deploy/tools/verifiers || exit 1; \
	VALGRIND=$$(deploy/tools/valgrind) || echo 'Instructions are not counted, only allocations.'; \
	export VALGRIND; \
	cargo build --workspace --bins --tests || exit 1; \
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace || exit 1; \
		cargo nextest run -p dispatcher --features test-panics --test api panics || exit 1; \
	else \
		echo 'cargo-nextest is not installed: running cargo test instead, without its time limits and its cap on system tests at once.'; \
		cargo test --workspace --bins --lib --tests || exit 1; \
		cargo test -p dispatcher --features test-panics --test api panics || exit 1; \
	fi; \
	exec cargo test --doc --workspace

# A soak of the simulator; `make test` runs the first of these seeds.
simulate:
	$(if $(SEED),CARILLON_SIM_SEED=$(SEED),CARILLON_SIM_SEEDS=$(or $(SEEDS),100000)) \
		cargo test -q -p dispatcher --test simulation no_seed -- --nocapture

# In the release profile: the targets for times are those of what is deployed. Each scenario ends
# within 15 minutes. One of them needs a dispatcher that heeds no lease, which goes by another name.
chaos:
	@NATS_SERVER=$$(deploy/tools/nats-server) || exit 1; \
	export NATS_SERVER; \
	set -- -q --release -p ingest -p dispatcher -p system-tests --bins; \
	out=$${CARGO_TARGET_DIR:-target}/release; \
	cargo build "$$@" --features dispatcher/test-no-lease || exit 1; \
	cp "$$out/dispatcher" "$$out/dispatcher-no-lease" || exit 1; \
	cargo build "$$@" || exit 1; \
	exec cargo run -q --release -p system-tests --bin chaos -- $(CHAOS)

# Bounded: some thousand calls, against services of its own on free ports.
api-fuzz:
	@NATS_SERVER=$$(deploy/tools/nats-server) || exit 1; \
	export NATS_SERVER; \
	deploy/tools/schemathesis || exit 1; \
	cargo build -q -p ingest -p dispatcher -p system-tests --bins || exit 1; \
	exec cargo run -q -p system-tests --bin api-fuzz

# In the release profile. Five rounds of everything but the curves take less than 20 minutes.
bench:
	@NATS_SERVER=$$(deploy/tools/nats-server) || exit 1; \
	export NATS_SERVER; \
	cargo build -q --release -p ingest -p dispatcher -p system-tests --bins || exit 1; \
	exec cargo run -q --release -p system-tests --bin bench -- $(BENCH)

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check -p shared --no-default-features
	@tree=$$(cargo tree -p shared --no-default-features --edges normal,build --target all --prefix none) || exit 1; \
	if printf '%s\n' "$$tree" | grep '^tokio '; then \
		echo 'shared without features must not depend on tokio' >&2; exit 1; \
	fi; \
	echo 'shared without features does not depend on tokio'
