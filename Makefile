# `make help` lists what can be done here.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# sudo and cron leave these out of PATH.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# One static binary; and no C compiler is needed, to build or to test.
export CGO_ENABLED := 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BIN := bin/unmasq

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/unmasq
	@mkdir -p bin
	@go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/unmasq

.PHONY: deps
deps: ## install the programs that tests and the lab run (Debian; root or sudo)
	@hack/deps

.PHONY: test
test: deps build lint ## install, build, and run every test, those that need root too
	@go build -C test/tools -o /dev/null tool
	@cd test/crd && go run github.com/unmasq/unmasq/hack/gotest -count=1 ./...
	@go run ./hack/gotest -count=1 -timeout 14m ./...

# How many real pods come and go, whose first act is to connect.
CHURN ?= 500

.PHONY: e2e
e2e: deps ## bring a real Kubernetes up in network namespaces and test on it (root, network; its first build takes 10 minutes); CHURN=100 is shorter
	@hack/deps containerd containerd runc runc nsenter util-linux
	@UNMASQ_PODS=$(CHURN) go run ./hack/gotest -tags e2e -count=1 -timeout 60m ./test/e2e/... ./test/probe
	@go run ./hack/gotest -tags e2e -count=1 -timeout 60m -run '^TestInstalled$$' ./test/deploy

.PHONY: judge
judge: deps ## hold explain against the kernel: a table of right, honestly unknown and wrong answers
	@go run ./hack/judge

# How many random packets, or rulesets of 100 packets each.
PACKETS ?= 220000
RULESETS ?= $(shell echo $$(( ($(PACKETS) + 99) / 100 )))

.PHONY: differential
differential: deps ## the same with many random rulesets: PACKETS=220000, or RULESETS=; SEED= repeats a run
	@UNMASQ_RULESETS=$(RULESETS) UNMASQ_SEED=$(SEED) go run ./hack/judge -run 'TestRandomRulesets'

.PHONY: e2e-api
e2e-api: deps ## hold a real API server against the agent: the same documents are right, an agent has the rights it needs (root; the first build takes minutes); KUBE=v1.34.4
	@cd test/crd && go run github.com/unmasq/unmasq/hack/gotest -tags e2e -count=1 -timeout 60m -run '^TestRealAPIServer$$' ./... $(if $(KUBE),-kube $(KUBE))
	@go run ./hack/gotest -tags e2e -count=1 -timeout 60m -run '^TestRealAPIServer$$' ./test/deploy $(if $(KUBE),-kube $(KUBE))

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [[ -n $$files ]]; then echo "not as gofmt writes it:"; echo "$$files"; exit 1; fi
	@go vet ./...
	@go vet -tags e2e ./test/...
	@go tool -modfile=tools/go.mod staticcheck ./...
	@go tool -modfile=tools/go.mod staticcheck -tags e2e ./test/...
	@cd test/crd && go vet -tags e2e ./... && go tool -modfile=../../tools/go.mod staticcheck -tags e2e ./...

.PHONY: generate
generate: ## write deepcopy functions and deploy/crd anew, from api's types and markers
	@go tool -modfile=tools/go.mod controller-gen object crd paths=./api/... output:crd:dir=deploy/crd

.PHONY: demo
demo: deps build ## run every scenario of the lab: who is seen as whom, before and after
	@$(BIN) lab run --variant both

.PHONY: bench
bench: deps ## measure, each number beside its baseline (3 minutes)
	@go test -run '^$$' -bench . -benchtime 1x -count=1 -timeout 60m ./test/bench
	@go test -run '^$$' -bench . -count=1 -timeout 60m ./internal/...

# The simulated cluster. A short form: NODES=200 PODS=6000 AGENTS=10.
NODES ?= 5000
PODS ?= 150000
AGENTS ?= 100

.PHONY: bench-kube
bench-kube: deps build ## measure the agent in a simulated cluster: NODES=5000 PODS=150000, AGENTS=100 at once (root; 13 minutes, 14 GB)
	@go build -o bin/benchkube ./test/benchkube
	@bin/benchkube -unmasq $(BIN) -nodes $(NODES) -pods $(PODS) -agents $(AGENTS) -json bin/bench-kube.json

.PHONY: kernels
kernels: deps ## run the kernel tests on Debian's 6.1 and 6.12 kernels, in an emulator
	@go run ./hack/kernels

.PHONY: dumps
dumps: deps ## write the dumps that tests read anew, with the real programs (root, network)
	@go run ./hack/dumps

# How long each target is fuzzed.
FUZZTIME ?= 1m

.PHONY: fuzz
fuzz: ## fuzz the readers, FUZZTIME=1m each
	@go run ./hack/fuzz $(FUZZTIME)

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin .cache
