# vramjet: `make run` shows it, `make test` proves it, `make help` lists the rest.

BIN     := .bin
GOLANGCI := $(BIN)/golangci-lint
GOLANGCI_VERSION := v2.15.0
FUZZTIME ?= 20s
RATE    ?= 200
REPEAT  ?= 3
SOAK    ?= 30m
SOAK_RATE ?= 50
ARGS    ?=
IMAGE   ?= vramjet/vramjet
BASE    ?= debian:trixie-slim

# The race detector needs cgo, which Go turns off where there's no C compiler.
RACE    := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
# NVIDIA's header marks what go-nvml binds as deprecated, hundreds of times.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

# Testcontainers' own cleaner is an image of a registry; tests remove what they start.
export TESTCONTAINERS_RYUK_DISABLED ?= true

# Tests are run anew each time, in another order. The integration tests come after
# the others, as they time what real processes do.
TESTFLAGS ?=
TESTARGS := $(RACE) -shuffle=on -timeout 600s $(TESTFLAGS)

.DEFAULT_GOAL := help

.PHONY: help run build image test check vet static lint fmt decide predict bench benchmarks reliability soak fuzz wire clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## start everything on this machine, submit a job, print its tokens
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(BIN)/vramjet up --nats 127.0.0.1:0 --http 127.0.0.1:0 --data "$$dir" --log-level warn --try "Once upon a time" $(ARGS)

build: ## build the binary into .bin/
	@go build -o $(BIN)/vramjet ./cmd/vramjet

test: ## unit and integration tests, with the race detector
	go test $(TESTARGS) $$(go list ./... | grep -v '/integration')
	go test $(TESTARGS) -parallel 4 ./integration
	go test $(TESTARGS) -timeout 1800s ./integration/containers/...

check: fmt lint vet test static decide predict ## everything that must hold before a change lands

vet: ## go vet
	go vet ./...

image: ## build the container image IMAGE around BASE; BASE=scratch: without NVIDIA's devices
	@CGO_ENABLED=$(if $(filter scratch,$(BASE)),0,1) GOOS=linux go build -trimpath -o $(BIN)/image/vramjet ./cmd/vramjet
	docker build -q -f Dockerfile --build-arg BASE=$(BASE) -t $(IMAGE) $(BIN)/image

static: ## see that the binary builds without cgo
	CGO_ENABLED=0 go build -o /dev/null ./cmd/vramjet

fmt: ## say which files gofmt would change
	@files=$$(gofmt -l .) && { test -z "$$files" || { echo "$$files"; exit 1; }; }

lint: $(GOLANGCI) ## golangci-lint with the project's rules
	$(GOLANGCI) run ./...

$(GOLANGCI):
	GOBIN=$(abspath $(BIN)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

decide: ## measure what a decision takes, and fail where that is too much
	go test -run '^$$' -bench Decision -benchtime 20000x ./dispatcher/placement

predict: ## run a workload on 100 nodes in one process, and see that the simulator predicts it
	go test -count=1 -v -run TestSimulatorPredictsFleet ./integration

bench: ## raw NATS limits, and vramjet beside them in the same run
	go test -run '^$$' -bench . -benchtime 1x -timeout 900s ./integration

benchmarks: build ## measure vramjet beside NATS on this machine, which nothing else should use, and write docs/benchmarks.md
	$(BIN)/vramjet bench --json $(ARGS) >$(BIN)/always.json
	$(BIN)/vramjet bench --json --durability interval $(ARGS) >$(BIN)/interval.json
	go test -count=1 -run '^TestBenchPage$$' ./cmd/vramjet -results $(abspath $(BIN))/always.json,$(abspath $(BIN))/interval.json

reliability: ## run the whole crash matrix in containers, and write docs/reliability.md
	go test -count=1 -v -timeout 6h -run '^TestCrashMatrix$$' ./integration/containers -full -rate $(RATE) -repeat $(REPEAT)

soak: ## let faults happen for SOAK under a steady load, in containers, and write docs/reliability.md
	go test -count=1 -v -timeout 12h -run '^TestSoak$$' ./integration/containers -soak $(SOAK) -rate $(SOAK_RATE)

fuzz: ## run each fuzz target for FUZZTIME
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

wire: ## black-box check of the wire protocol, where the checker is at hand
	go test -count=1 -v -run '^TestWire' ./integration

clean: ## remove what was built
	rm -rf $(BIN)
