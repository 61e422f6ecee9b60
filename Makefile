# `make demo` and `make test` are the two commands of the README; each installs what it needs first.
.DEFAULT_GOAL := help
.PHONY: help demo test bench e2e-kill e2e-loadbalancer e2e-flows fuzz check setup build image lab-down e2e-bigip

help:  ## what can be made
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

setup:  ## install what is missing (says what and why)
	@tools/setup

build: setup  ## AKE's programs
	@echo "building AKE's programs (some minutes the first time)"
	@cargo build --workspace --bins --quiet

image: build  ## what a node boots from; prints its folder
	@tools/image

demo: image  ## a cloud on this machine, a cluster in it, every proof
	@cargo run --quiet -p scenarios --bin ake-demo

test: image  ## format, lints, docs, unit tests, and the scenarios on a lab
	@tools/test

bench: image  ## sizes and times, written to docs/reference/performance.md
	@cargo run --quiet -p scenarios --bin ake-bench

e2e-kill: image  ## the controller manager is killed before and after each of its steps; SHARD=i/n
	@AKE_LAB=kill tests/run kill

e2e-loadbalancer: image  ## Kubernetes' own tests of load balancers; FOCUS=words, SHARD=i/n, RESUME=1, KEEP=1
	@tools/e2e > /dev/null
	@cargo run --quiet -p scenarios --bin ake-e2e -- loadbalancer

e2e-flows: image  ## 1,000 open connections through every change of nodes, balancers and Services; KEEP=1
	@cargo run --quiet -p scenarios --bin ake-flows

fuzz: setup  ## every fuzz target, FUZZ_SECONDS each (600 where nobody says it)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} cargo test --quiet --no-fail-fast -p lb-driver -p ake-xdp \
	  -p ake-api -p cloud-provider --lib --test answers --test packets \
	  fuzz_ -- --nocapture --test-threads=1

e2e-bigip: setup  ## clients of others against the stand-in of a BIG-IP
	@tools/e2e-bigip

check: setup  ## the fast part of `test`: no lab
	@tools/test --no-lab

lab-down:  ## end every lab of this machine
	@cargo run --quiet -p ake-lab -- down --all
