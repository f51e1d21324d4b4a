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
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/unmasq
	@mkdir -p bin
	@go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/unmasq

.PHONY: deps
deps: ## install the programs that tests and the lab run (Debian; root or sudo)
	@hack/deps

.PHONY: test
test: deps build lint ## install, build, and run every test, those that need root too
	@go run ./hack/gotest -count=1 -timeout 14m ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [[ -n $$files ]]; then echo "not as gofmt writes it:"; echo "$$files"; exit 1; fi
	@go vet ./...
	@go tool -modfile=tools/go.mod staticcheck ./...

.PHONY: demo
demo: deps build ## run every scenario of the lab: who is seen as whom, before and after
	@$(BIN) lab run

.PHONY: bench
bench: deps build ## measure, each number beside its baseline
	@go test -run '^$$' -bench . -count=1 -timeout 60m ./...

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin
