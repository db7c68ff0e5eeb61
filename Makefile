# What people and CI type. `make help` lists it; nothing here is clever on purpose.
#
# Every target brings what it needs (scripts/setup.sh; quick and offline once cached).

SHELL := /bin/sh
CARGO ?= cargo
SETUP := scripts/setup.sh
TOOLS := .cache/tools
NEXTEST_PROFILE ?= $(if $(CI),ci,default)

export CARGO_TERM_COLOR ?= $(if $(CI),never,auto)

.PHONY: help demo demo-single demo-zones test test-long lint bench tools clean fmt
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Zones are network namespaces, which only root can make.
demo: $(if $(filter 0,$(shell id -u)),demo-zones,demo-single) ## show what holdfast does: three zones as root, one node without

demo-single: ## a disk vanishes under load and the node comes back by itself
	@$(SETUP) packages tools
	@$(CARGO) build --locked --quiet --bins
	@target/debug/holdfast-demo single

demo-zones: ## three nodes in three zones: engines, links and disks are lost, and no commit (needs root)
	@$(SETUP) packages tools
	@$(CARGO) build --locked --quiet --bins
	@target/debug/holdfast-demo zones

test: lint ## everything that CI runs
	@$(SETUP) nextest postgres17 mysql grpcurl
	$(CARGO) build --locked --bins
	$(CARGO) nextest run --locked --workspace --profile $(NEXTEST_PROFILE)

# What has no random cases ran with `test`. A case of these is a whole backup and its restore, or the content of a disk.
HEAVY := (package(holdfast-backup) & kind(test)) | test(only_zeros_are_blank)
NO_CASES := package(holdfast-integration) + package(holdfast-sim)
# Each step of each protocol several times, with other members that die; tells the outages.
STEPS := package(holdfast-integration) & test(may_die_after_each_step)

test-long: test ## what is too long for CI: run by hand before an issue is closed
	PROPTEST_CASES=20000 $(CARGO) nextest run --locked --workspace --profile long -E 'not ($(HEAVY)) & not ($(NO_CASES))'
	HOLDFAST_SIM_HISTORIES=1000000 $(CARGO) nextest run --locked --workspace --profile long -E 'package(holdfast-sim) & test(no_history)'
	PROPTEST_CASES=250 $(CARGO) nextest run --locked --workspace --profile long -E '$(HEAVY)'
	HOLDFAST_ROUNDS=4 $(CARGO) nextest run --locked --workspace --profile long --success-output immediate -E '$(STEPS)'

lint: ## formatting, clippy, dependency policy, documentation
	@$(SETUP) packages tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(TOOLS)/cargo-deny --locked check bans licenses sources
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

bench: ## an optimised build: backup and restore of 2 GiB, detection, outages, an idle and a busy agent; JSON in target/bench
	@$(SETUP) packages tools
	$(CARGO) build --locked --release --bins
	@mkdir -p target/bench
	@target/release/holdfast-demo single --scale 150 --report target/bench/single.json
	@target/release/holdfast-bench detect --report target/bench/detection.json
	@target/release/holdfast-bench idle --report target/bench/idle.json
	@target/release/holdfast-bench load --report target/bench/load.json
	@target/release/holdfast-demo zones --rounds 5 --report target/bench/zones.json

fmt: ## format all code
	$(CARGO) fmt --all

tools: ## fetch or build every tool that the targets above use
	@$(SETUP) packages nextest tools postgres17 mysql grpcurl

clean: ## remove what was built; fetched tools stay in .cache
	$(CARGO) clean
