# make demo: the main job, with real parts, on this machine. make test: everything that CI checks.
# Both run scripts/setup first, which installs what this machine lacks and says what.

export CGO_ENABLED = 0
export GOTOOLCHAIN = auto
GO = .tools/bin/go
CORE = $(CURDIR)/.tools/bin/deltachat-rpc-server

# Sandboxes need a cgroup of their own. Root makes one; a user gets one from systemd.
ifneq ($(shell id -u),0)
DELEGATE = $(shell command -v systemd-run >/dev/null && echo systemd-run --user --scope --quiet --property=Delegate=yes)
endif

.PHONY: demo test build setup lint bench clean

demo: build
	$(DELEGATE) bin/mayfly demo -core $(CORE) $(DEMO)

test: lint build
	$(DELEGATE) $(GO) test -p 2 -timeout 9m ./...

build: setup
	$(GO) build -trimpath -o bin/ ./cmd/...

lint: setup
	@test -z "$$($(GO)fmt -l cmd examples internal test)" || { $(GO)fmt -l cmd examples internal test; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: build
	$(GO) test -run '^$$' -bench . ./...

setup:
	@scripts/setup

clean:
	rm -rf bin
