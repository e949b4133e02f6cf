GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# The version is told by the linker; go need not ask git, which refuses a
# checkout that belongs to somebody else than root.
export GOFLAGS += -buildvcs=false

.PHONY: build demo demo-down test test-nova chaos fuzz bench lint deps

build:
	$(GO) build -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/...

deps:
	@scripts/install-deps.sh

lint:
	@dirs="$$($(GO) list -tags nova -f '{{.Dir}}' ./...)" && test -n "$$dirs" && bad="$$(gofmt -l $$dirs)" && \
		{ test -z "$$bad" || { echo "gofmt -w is due for: $$bad" >&2; exit 1; }; }
	$(GO) vet -tags nova ./...
	$(GO) tool staticcheck -tags nova ./...

# Tests with real switches and clients share two processors and their clocks: one
# that fails is run again, and what failed is told at the end. A data race is final.
test: deps build lint
	$(GO) tool gotestsum --format pkgname-and-test-fails --rerun-fails=2 --rerun-fails-max-failures=6 \
		--rerun-fails-run-root-test --rerun-fails-abort-on-data-race --packages=./... -- -race -timeout 40m
	scripts/fuzz.sh 1000x

# A cluster of three is broken in all ways for MINUTES, at random from SEED.
SEED ?= 1
MINUTES ?= 10
chaos: deps
	$(GO) test -race -count 1 -v -timeout 0 ./test/e2e -run TestChaosLosesNothing -chaos.seed $(SEED) -chaos.time $(MINUTES)m

# With the real Nova: it installs 150 packages, and takes minutes to start.
test-nova: build
	@scripts/install-deps.sh nova
	nice -n 10 $(GO) test -tags nova -count 1 -timeout 60m -v ./test/nova

# FUZZTIME is how long each target is fuzzed; FUZZ is a regular expression of targets.
FUZZTIME ?= 5s
fuzz: deps
	scripts/fuzz.sh $(FUZZTIME) '$(FUZZ)'

# Where there is no Neutron to be had, the bench says so and goes on without.
bench: deps build
	-@scripts/install-deps.sh bench
	$(GO) test -run '^$$' -bench . -benchmem ./flows ./network ./pipeline ./controller ./northbound
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 1x -timeout 40m ./test/bench -args -update
	$(GO) test -run '^$$' -bench . -benchtime 3x ./test/console

demo: deps build
	@scripts/demo.sh up

demo-down:
	@scripts/demo.sh down
