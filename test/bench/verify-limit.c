/*
 * What reading the kernel's state costs without any program around it: the calls of a verification (the IPVS table by
 * getsockopt, all addresses and all sets by netlink dumps), their answers thrown away.
 *
 *   verify-limit TIMES      prints one JSON object: CPU and elapsed milliseconds of one reading, of
 *                         the one call in it that lists all virtual servers, and what it read
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ip_vs.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char answer[128 * 1024];
static long servers, reals, bytes;
static double listing;

static void die(const char *what) {
  fprintf(stderr, "verify-limit: %s: %s\n", what, strerror(errno));
  exit(2);
}

static double cpu(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec * 1e3 + used.ru_utime.tv_usec / 1e3 + used.ru_stime.tv_sec * 1e3 + used.ru_stime.tv_usec / 1e3;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void read_table(int fd) {
  struct ip_vs_getinfo info;
  socklen_t length = sizeof info;
  if (getsockopt(fd, IPPROTO_IP, IP_VS_SO_GET_INFO, &info, &length) < 0) die("GET_INFO");
  static struct ip_vs_get_services *services;
  static struct ip_vs_get_dests *dests;
  static unsigned room, room_dests;
  if (services == NULL || room < info.num_services) {
    room = info.num_services;
    services = realloc(services, sizeof *services + room * sizeof(struct ip_vs_service_entry));
  }
  services->num_services = info.num_services;
  length = sizeof *services + info.num_services * sizeof(struct ip_vs_service_entry);
  double start = milliseconds();
  if (getsockopt(fd, IPPROTO_IP, IP_VS_SO_GET_SERVICES, services, &length) < 0) die("GET_SERVICES");
  listing += milliseconds() - start;
  servers += services->num_services;
  bytes += length;
  for (unsigned i = 0; i < services->num_services; i++) {
    struct ip_vs_service_entry *entry = &services->entrytable[i];
    if (dests == NULL || room_dests < entry->num_dests + 1) {
      room_dests = 2 * (entry->num_dests + 1);
      dests = realloc(dests, sizeof *dests + room_dests * sizeof(struct ip_vs_dest_entry));
    }
    dests->protocol = entry->protocol;
    dests->addr = entry->addr;
    dests->port = entry->port;
    dests->fwmark = entry->fwmark;
    dests->num_dests = entry->num_dests + 1;
    length = sizeof *dests + dests->num_dests * sizeof(struct ip_vs_dest_entry);
    if (getsockopt(fd, IPPROTO_IP, IP_VS_SO_GET_DESTS, dests, &length) < 0) die("GET_DESTS");
    reals += entry->num_dests;
    bytes += length;
  }
}

static int open_netlink(int protocol) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), receive = 8 << 20;
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof receive);
  return fd;
}

static void dump(int fd, void *request, size_t size, const char *what) {
  if (send(fd, request, size, 0) < 0) die(what);
  for (;;) {
    ssize_t length = recv(fd, answer, sizeof answer, 0);
    if (length < 0) die(what);
    bytes += length;
    for (ssize_t at = 0; at + NLMSG_HDRLEN <= length;) {
      struct nlmsghdr *header = (struct nlmsghdr *)(answer + at);
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return;
      at += NLMSG_ALIGN(header->nlmsg_len);
    }
  }
}

static void read_addresses(int fd) {
  struct {
    struct nlmsghdr header;
    struct ifaddrmsg message;
  } request = {
      .header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_GETADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1},
      .message = {.ifa_family = AF_UNSPEC},
  };
  dump(fd, &request, sizeof request, "addresses");
}

static void read_sets(int fd) {
  struct {
    struct nlmsghdr header;
    struct nfgenmsg message;
    struct nlattr attribute;
    unsigned char protocol, padding[3];
  } request = {
      .header = {.nlmsg_len = sizeof request, .nlmsg_type = NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1},
      .message = {.nfgen_family = AF_INET, .version = NFNETLINK_V0},
      .attribute = {.nla_len = NLA_HDRLEN + 1, .nla_type = IPSET_ATTR_PROTOCOL},
      .protocol = 6,
  };
  dump(fd, &request, sizeof request, "sets");
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: verify-limit TIMES\n"), 2;
  int times = atoi(argv[1]), options = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  if (options < 0) die("socket");
  int route = open_netlink(NETLINK_ROUTE), netfilter = open_netlink(NETLINK_NETFILTER);
  double start = milliseconds(), used = cpu();
  for (int i = 0; i < times; i++) {
    read_table(options);
    read_addresses(route);
    read_sets(netfilter);
  }
  printf("{\"cpuMs\":%.3f,\"ms\":%.3f,\"listMs\":%.3f,\"virtualServers\":%ld,\"realServers\":%ld,\"bytes\":%ld}\n", (cpu() - used) / times,
         (milliseconds() - start) / times, listing / times, servers / times, reals / times, bytes / times);
  return 0;
}
