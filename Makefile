# The only entry point. `make demo` shows it, `make test` proves it, `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

HANDOFF_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/handoff
# built once per machine, whatever clone it is built from
export CARGO_TARGET_DIR ?= $(HANDOFF_CACHE)/target
export HANDOFF_CACHE

LAB := tests/lab/lab
STATIC := x86_64-unknown-linux-gnu
STATIC_BUILD := RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile ci --target $(STATIC)
BINARY := $(CARGO_TARGET_DIR)/$(STATIC)/ci/handoff
IMAGE := handoff:0.1.0
E2E := $(CARGO_TARGET_DIR)/debug/handoff-e2e
# by version, so that another one is built beside it
DENY := $(HANDOFF_CACHE)/tools/cargo-deny-0.20.2/bin/cargo-deny
export CYCLONEDX := $(HANDOFF_CACHE)/tools/cargo-cyclonedx-0.5.9/bin/cargo-cyclonedx

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: e2e-ready ## the main job, shown: three moves side by side on a real cluster
	tests/run demo

.PHONY: test
test: check fuzz apiserver-test e2e-ready ## everything: the fast part, decoders fuzzed, a real API server and scheduler, real clusters
	tests/run ci

.PHONY: check
check: rust browser $(DENY) ## the fast part: format, lints, licences, unit, property and in-process HTTP tests, manifests
	tests/docs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
	$(DENY) check --hide-inclusion-graph licenses bans sources
	tests/deploy/run
	@if timeout 60 $(DENY) fetch db 2>/dev/null; then $(DENY) --offline check advisories; \
	else echo "NOT CHECKED: security advisories. Their database, github.com/RustSec/advisory-db, cannot be fetched from here." >&2; fi

# the page of moves is tested in it; without one, that test says that it checked nothing
.PHONY: browser
browser:
	@for b in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do command -v $$b >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get install -y -q --no-install-recommends chromium-headless-shell || true; fi

.PHONY: model
model: rust ## the model check with larger bounds: minutes and some GB
	cargo run -p handoff-model -- large

.PHONY: bench
bench: rust ## times, instructions and memory, side by side with handlers written the usual way (docs/performance.md)
	cargo build --profile measure -p handoff-bench
	taskset -c 0 $(CARGO_TARGET_DIR)/measure/handoff-bench one-connection
	$(CARGO_TARGET_DIR)/measure/handoff-bench --profiles $(HANDOFF_CACHE)/profiles $(ARGS)

# coverage for libFuzzer, as cargo-fuzz asks for it; works on the stable toolchain, without a sanitizer
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZED := webhook extender caches certs records mounts
SECONDS := 10

.PHONY: fuzz
fuzz: rust ## every decoder under libFuzzer, SECONDS=10 each, from the corpus in fuzz/corpus
	@command -v c++ >/dev/null || { echo "a C++ compiler is missing: apt-get install build-essential" >&2; exit 1; }
	RUSTFLAGS="$(COVERAGE)" cargo build --profile fuzz --target $(STATIC) -p handoff-fuzz --features libfuzzer --bins
	@for target in $(FUZZED); do \
	  found=$(HANDOFF_CACHE)/fuzz/$$target; mkdir -p $$found; \
	  $(CARGO_TARGET_DIR)/$(STATIC)/fuzz/fuzz-$$target -max_total_time=$(SECONDS) -timeout=10 -max_len=16384 \
	    -verbosity=0 -print_final_stats=1 -artifact_prefix=$$found. $$found fuzz/corpus/$$target; \
	done

.PHONY: chart-test
chart-test: e2e-ready ## the chart on the lab: install, test, upgrade and uninstall in and after a move; the tools
	tests/run chart

.PHONY: e2e
e2e: e2e-ready ## the real-cluster test on the cluster of $$KUBECONFIG (it must have Longhorn), or on the lab
	tests/run e2e

.PHONY: moves
moves: e2e-ready ## the figures: N=10 moves on the lab (see tests/run for what can be set)
	tests/run moves

.PHONY: lab-up
lab-up: rust ## a real kind cluster with real Longhorn and a real S3 server, from packages
	$(LAB) up

.PHONY: lab-down
lab-down: ## remove the lab and everything it made, except the cache
	$(LAB) down

.PHONY: apiserver-test
apiserver-test: binary ## the serving side against a real kube-apiserver and kube-scheduler, without a cluster
	cargo build -p handoff-apiserver
	tests/run apiserver

# built like the program: its own extender, which does nothing, is measured beside Handoff's
.PHONY: throughput
throughput: binary ## pods per second of a real kube-scheduler with 500 nodes: without, with Handoff, with an extender that does nothing
	$(STATIC_BUILD) -p handoff-apiserver
	HANDOFF_APISERVER=$(dir $(BINARY))handoff-apiserver tests/run throughput

.PHONY: image
image: rust $(CYCLONEDX) ## the image, FROM scratch, as an archive in the cache, and what it is made of beside it
	deploy/image/build $(HANDOFF_CACHE)/handoff-image.tar $(IMAGE)

.PHONY: reproducible
reproducible: rust $(CYCLONEDX) ## build the image in this directory and in another, and compare the bytes
	deploy/image/reproducible $(IMAGE)

# what tests put into clusters: the same code, sooner
.PHONY: test-image
test-image: binary
	deploy/image/archive $(HANDOFF_CACHE)/handoff-image.tar $(IMAGE) $(BINARY)

.PHONY: deploy-test
deploy-test: ## the chart, the kustomizations and the image archive, with the real helm, kustomize and kubeconform
	tests/deploy/run

.PHONY: deploy-docs
deploy-docs: ## write the table of the chart's values anew
	HANDOFF_WRITE_DOCS=1 tests/deploy/run -run TestTheTableOfValues

.PHONY: binary
binary: rust
	$(STATIC_BUILD) -p handoff

.PHONY: crd
crd: rust ## write deploy/kustomize/crd.yaml anew
	cargo run -q -p handoff -- crd > deploy/kustomize/crd.yaml.new
	mv deploy/kustomize/crd.yaml.new deploy/kustomize/crd.yaml

.PHONY: cli-docs
cli-docs: rust ## write docs/cli.md anew, from the flags
	cargo run -q -p handoff -- markdown > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md

.PHONY: e2e-ready
e2e-ready: rust
	cargo build -p handoff-e2e

# name and version are in the path; minutes of CPU, once per machine
$(DENY) $(CYCLONEDX): | rust
	env -u CARGO_TARGET_DIR cargo install --locked --root $(abspath $(@D)/..) $(@F)@$(lastword $(subst -, ,$(notdir $(abspath $(@D)/..))))

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup (https://rustup.rs), the version is in rust-toolchain.toml" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt-get install build-essential" >&2; exit 1; }
