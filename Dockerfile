# syntax=docker/dockerfile:1
# Node 26 is the active LTS line since October 2026; Debian 13 is the release that its images are built on.
ARG BASE=node:26-trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 make g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what changes rarely: compiling the FFI addon takes longest.
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY src ./src
COPY native ./native
COPY scripts/bundle.mjs scripts/bundle-plugins.mjs ./scripts/
RUN node scripts/bundle.mjs

FROM ${BASE}
# iptables: both backends, of which the daemon takes the one that the node uses. kmod: loading modules.
# ipvsadm, ipset: not used by the daemon, which speaks netlink; they are for people in `kubectl exec`.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables kmod ipvsadm ipset \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /opt/kube-proxy-ipvs \
 # The second name is where kubeadm's and EKS's DaemonSets look, so that they need another image only.
 && ln -s /opt/kube-proxy-ipvs/dist/main.js /usr/local/bin/kube-proxy-ipvs \
 && ln -s /opt/kube-proxy-ipvs/dist/main.js /usr/local/bin/kube-proxy
ENV NODE_ENV=production
WORKDIR /opt/kube-proxy-ipvs
COPY --from=build /src/package.json ./package.json
# All JavaScript is inside the bundle; the two compiled addons are all that it loads from node_modules.
COPY --from=build /src/node_modules/ffi-napi/build/Release/ffi_bindings.node ./node_modules/ffi-napi/build/Release/ffi_bindings.node
COPY --from=build /src/node_modules/@2060.io/ref-napi/build/Release/binding.node ./node_modules/@2060.io/ref-napi/build/Release/binding.node
COPY --from=build /src/dist ./dist
RUN kube-proxy-ipvs --version && kube-proxy --version
# Root, because netlink and xtables ask for capabilities that only root's processes keep through exec without file
# capabilities; the DaemonSet takes all of root's but NET_ADMIN and NET_RAW away.
USER 0
ENTRYPOINT ["kube-proxy-ipvs"]
