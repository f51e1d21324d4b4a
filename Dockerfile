# Three images of one binary, for amd64 and arm64:
#
#   docker buildx build --target unmasq        -t REGISTRY/unmasq:0.1.0 .         the binary alone
#   docker buildx build --target ip-masq-agent -t REGISTRY/ip-masq-agent:0.1.0 .  in ip-masq-agent's place, see docs/ip-masq-agent.md
#   docker buildx build --target tools         -t REGISTRY/unmasq:0.1.0-tools .   with the programs that explain and snapshot run
#
# What makes a build repeatable:
#   - the binary depends on the source, VERSION and Go's version alone;
#   - --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), with --output type=image,…,rewrite-timestamp=true,
#     makes the times of files and of the images those of the commit;
#   - GO_IMAGE and DEBIAN_IMAGE may name digests (golang@sha256:…);
#   - DEBIAN_SNAPSHOT=20261101T000000Z takes Debian's packages as they were then. Without it the tools are
#     as new as the day.
ARG GO_IMAGE=golang:1.26-trixie
ARG DEBIAN_IMAGE=debian:trixie-slim

# Go builds for other machines where it runs: no emulator is needed.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
ARG GOPROXY
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY internal internal
ARG VERSION=unknown
ARG TARGETOS=linux
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /unmasq ./cmd/unmasq

# Enforces as well as the other, and runs no program. It needs no certificates:
# a pod is given the API server's.
FROM scratch AS unmasq
COPY --from=build /unmasq /unmasq
ENTRYPOINT ["/unmasq"]

FROM ${DEBIAN_IMAGE} AS programs
ARG DEBIAN_SNAPSHOT
RUN set -eu; \
    if [ -n "${DEBIAN_SNAPSHOT:-}" ]; then \
      sed -i "s#^URIs: http://deb.debian.org/\(.*\)\$#URIs: http://snapshot.debian.org/archive/\1/$DEBIAN_SNAPSHOT#" /etc/apt/sources.list.d/debian.sources; \
      echo 'Acquire::Check-Valid-Until "false";' >/etc/apt/apt.conf.d/snapshot; \
    fi; \
    apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends conntrack ipset iproute2 iptables ipvsadm netbase nftables wireguard-tools; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*

# What DaemonSets of ip-masq-agent and of Azure's ip-masq-agent-v2 start, by name too.
FROM programs AS ip-masq-agent
COPY --from=build /unmasq /unmasq
RUN ln -s unmasq /ip-masq-agent; ln -s unmasq /ip-masq-agent-v2
ENTRYPOINT ["/ip-masq-agent"]

FROM programs AS tools
COPY --from=build /unmasq /unmasq
ENTRYPOINT ["/unmasq"]
