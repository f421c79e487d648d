# syntax=docker/dockerfile:1
# Node 26 is the active LTS line since October 2026; Debian 13 is the release that its images are built on.
# For a reproducible build pin both by digest: --build-arg NODE=node:26-trixie-slim@sha256:... (and BASE likewise).
ARG NODE=node:26-trixie-slim
ARG BASE=debian:trixie-slim

FROM ${NODE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 make g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Node's headers are in its image: node-gyp must not fetch them (it could not, behind a mirror of the registry).
ENV npm_config_nodedir=/usr/local
# First what changes rarely: compiling the FFI addon takes longest.
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY src ./src
COPY native ./native
COPY scripts/bundle.mjs scripts/bundle-plugins.mjs scripts/licenses.mjs ./scripts/
# What the program says of itself (--version=raw, kubeproxy_ipvs_build_info); no git and no clock is asked in here:
#   docker build --build-arg GIT_COMMIT="$(git rev-parse HEAD)" --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --build-arg CREATED="$(git log -1 --date=iso-strict --format=%cd)" .
ARG GIT_COMMIT=
ARG SOURCE_DATE_EPOCH=
RUN node scripts/bundle.mjs

# Node's binary alone on the base: no npm, no corepack, no headers; nothing in here can install or compile anything.
FROM ${BASE}
ARG VERSION=0.1.0
ARG GIT_COMMIT=
ARG CREATED=
LABEL org.opencontainers.image.title="kube-proxy-ipvs" \
      org.opencontainers.image.description="kube-proxy replacement that keeps Kubernetes Services in IPVS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.created="${CREATED}"
# iptables: both backends, of which the daemon takes the one that the node uses. kmod: loading modules.
# ipvsadm, ipset: not used by the daemon, which speaks netlink; they are for people in `kubectl exec`.
# libstdc++6, libatomic1: what Node's binary is linked with.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables kmod ipvsadm ipset libstdc++6 libatomic1 \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /opt/kube-proxy-ipvs \
 # The second name is where kubeadm's and EKS's DaemonSets look, so that they need another image only.
 && ln -s /opt/kube-proxy-ipvs/dist/main.js /usr/local/bin/kube-proxy-ipvs \
 && ln -s /opt/kube-proxy-ipvs/dist/main.js /usr/local/bin/kube-proxy
COPY --from=build /usr/local/bin/node /usr/local/bin/node
ENV NODE_ENV=production
WORKDIR /opt/kube-proxy-ipvs
COPY --from=build /src/package.json ./package.json
# All JavaScript is inside the bundle; the two compiled addons are all that it loads from node_modules.
COPY --from=build /src/node_modules/ffi-napi/build/Release/ffi_bindings.node ./node_modules/ffi-napi/build/Release/ffi_bindings.node
COPY --from=build /src/node_modules/@2060.io/ref-napi/build/Release/binding.node ./node_modules/@2060.io/ref-napi/build/Release/binding.node
# With dist/THIRD-PARTY-LICENSES.
COPY --from=build /src/dist ./dist
COPY LICENSE NOTICE ./
RUN kube-proxy-ipvs --version && kube-proxy --version
# Root, because netlink and xtables ask for capabilities that only root's processes keep through exec without file
# capabilities; the DaemonSet takes all of root's but NET_ADMIN and NET_RAW away.
USER 0
ENTRYPOINT ["kube-proxy-ipvs"]
